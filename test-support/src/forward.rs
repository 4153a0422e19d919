//! A macro for a test's store that passes calls on to another store.

/// Writes the methods of [`SessionStore`](cloakroom::SessionStore) and
/// [`UserIndex`](cloakroom::UserIndex) that only call another store.
///
/// Use it in an `impl` block under `#[async_trait::async_trait]`. It names the other store and the
/// methods. `through` names a method of the type. That method gets the
/// [`StoreCall`](cloakroom::testing::StoreCall) and the future of the answer, and returns the
/// answer:
///
/// ```ignore
/// #[async_trait::async_trait]
/// impl SessionStore for Slow {
///     forward_store! { self => self.store, through wait; load, insert, replace, touch, remove }
///     forward_store! { self => self.store; purge_expired }
/// }
/// ```
#[macro_export]
macro_rules! forward_store {
    ($self:ident => $store:expr, through $through:ident; $($method:ident),+ $(,)?) => {
        $( $crate::forward_store!(@$method $self, $store, $through); )+
    };
    ($self:ident => $store:expr; $($method:ident),+ $(,)?) => {
        $( $crate::forward_store!(@$method $self, $store); )+
    };
    (@load $self:ident, $store:expr $(, $through:ident)?) => {
        $crate::forward_store! { @method $self, load, Load, $store $(, $through)?; []
            id: $crate::cloakroom::RecordId => Option<$crate::cloakroom::Record> }
    };
    (@insert $self:ident, $store:expr $(, $through:ident)?) => {
        $crate::forward_store! { @method $self, insert, Insert, $store $(, $through)?; ['life1]
            id: $crate::cloakroom::RecordId, record: &'life1 $crate::cloakroom::Record => bool }
    };
    (@replace $self:ident, $store:expr $(, $through:ident)?) => {
        $crate::forward_store! { @method $self, replace, Replace, $store $(, $through)?; ['life1]
            id: $crate::cloakroom::RecordId, expected: $crate::cloakroom::Version,
            record: &'life1 $crate::cloakroom::Record => $crate::cloakroom::Replaced }
    };
    (@touch $self:ident, $store:expr $(, $through:ident)?) => {
        $crate::forward_store! { @method $self, touch, Touch, $store $(, $through)?; ['life1]
            id: $crate::cloakroom::RecordId, record: &'life1 $crate::cloakroom::Record => bool }
    };
    (@remove $self:ident, $store:expr $(, $through:ident)?) => {
        $crate::forward_store! { @method $self, remove, Remove, $store $(, $through)?; []
            id: $crate::cloakroom::RecordId => bool }
    };
    (@purge_expired $self:ident, $store:expr $(, $through:ident)?) => {
        $crate::forward_store! { @method $self, purge_expired, PurgeExpired, $store $(, $through)?; []
            now: $crate::cloakroom::Timestamp => u64 }
    };
    (@find_by_user $self:ident, $store:expr $(, $through:ident)?) => {
        $crate::forward_store! { @method $self, find_by_user, FindByUser, $store $(, $through)?; ['life1]
            user: &'life1 $crate::cloakroom::UserId
            => Vec<($crate::cloakroom::RecordId, $crate::cloakroom::Record)> }
    };
    (@remove_by_user $self:ident, $store:expr $(, $through:ident)?) => {
        $crate::forward_store! { @method $self, remove_by_user, RemoveByUser, $store $(, $through)?; ['life1]
            user: &'life1 $crate::cloakroom::UserId, except: Option<$crate::cloakroom::RecordId> => u64 }
    };
    // `async_trait` turns an `async fn` into this. It does not look into macros, so the macro
    // writes it.
    (@method $self:ident, $method:ident, $call:ident, $store:expr $(, $through:ident)?;
        [$($life:lifetime)?] $($argument:ident: $type:ty),+ => $answer:ty) => {
        fn $method<'life0, $($life,)? 'async_trait>(
            &'life0 $self,
            $($argument: $type),+
        ) -> ::std::pin::Pin<::std::boxed::Box<
            dyn ::std::future::Future<Output = Result<$answer, $crate::cloakroom::StoreError>>
                + ::std::marker::Send
                + 'async_trait,
        >>
        where
            'life0: 'async_trait,
            $($life: 'async_trait,)?
            Self: 'async_trait,
        {
            ::std::boxed::Box::pin(async move {
                let answer = $store.$method($($argument),+);
                $crate::forward_store!(@ask $self, $call, answer $(, $through)?)
            })
        }
    };
    (@ask $self:ident, $call:ident, $answer:ident) => {
        $answer.await
    };
    (@ask $self:ident, $call:ident, $answer:ident, $through:ident) => {
        $self.$through($crate::cloakroom::testing::StoreCall::$call, $answer).await
    };
}
