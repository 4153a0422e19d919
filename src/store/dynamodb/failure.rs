//! Why a call failed, and whether the store makes it again.

use std::error::Error;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use tokio::time::sleep;

use super::DynamoDbStore;
use super::layout::Item;
use crate::error::{BoxError, StoreError};

/// How long the store waits before it makes a call again: this time, then twice this time, and so
/// on.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// How often other writes may come in between, before the store gives up. Each of them has changed
/// the item, so this many in a row mean that somebody writes all the time, or that the item is not
/// as the store has written it.
const MOST_REFUSALS: u32 = 32;

/// Why a call failed.
#[derive(Debug)]
pub(super) struct Failure {
    text: String,
    /// What the client said, without the response that it got: a response may hold a record.
    source: Option<BoxError>,
    effect: Effect,
    is_of_start_key: bool,
}

/// What a write that failed has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing, and it would fail again.
    None,
    /// Nothing, and it may work later.
    NotYet,
    /// The answer did not come.
    Unknown,
}

impl Failure {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            source: None,
            effect: Effect::None,
            is_of_start_key: false,
        }
    }

    pub(super) fn of<E>(error: SdkError<E>) -> Self
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let code = error.code().unwrap_or_default();
        let is_servers_fault = error
            .raw_response()
            .is_some_and(|response| response.status().is_server_error());
        let effect = match (&error, code) {
            (SdkError::ConstructionFailure(_), _) => Effect::None,
            (
                _,
                "ProvisionedThroughputExceededException"
                | "ReplicatedWriteConflictException"
                | "RequestLimitExceeded"
                | "ThrottlingException"
                | "TransactionConflictException",
            ) => Effect::NotYet,
            (SdkError::ServiceError(_), _) if !is_servers_fault => Effect::None,
            _ => Effect::Unknown,
        };
        // "The provided starting key is invalid", with the reason.
        let is_of_start_key = code == "ValidationException"
            && error.message().unwrap_or_default().contains("starting key");
        let said = match (&error, error.message()) {
            (SdkError::ServiceError(_), Some(message)) => format!("{code}: {message}"),
            (SdkError::ServiceError(_), None) => code.to_owned(),
            _ => chain(&error),
        };
        let text = match advice(code, error.message().unwrap_or_default()) {
            Some(advice) => format!("{said}; {advice}"),
            None => said,
        };
        Self {
            text,
            source: error.into_source().ok(),
            effect,
            is_of_start_key,
        }
    }

    /// A call has failed that may work later.
    pub(super) fn not_yet(text: impl Into<String>) -> Self {
        Self {
            effect: Effect::NotYet,
            ..Self::new(text)
        }
    }

    /// Whether DynamoDB does not take the key behind which a scan should begin.
    pub(super) fn is_of_start_key(&self) -> bool {
        self.is_of_start_key
    }

    pub(super) fn effect(&self) -> Effect {
        self.effect
    }
}

/// The texts of an error and of its sources.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// What to do about an error of DynamoDB.
fn advice(code: &str, message: &str) -> Option<&'static str> {
    Some(match code {
        "ResourceNotFoundException" => {
            "make the table with `DynamoDbStore::create_table`, or check its name, the region and \
             the account"
        }
        "AccessDeniedException" => {
            "give the role of the application the rights that the page on operations lists"
        }
        "UnrecognizedClientException" | "InvalidSignatureException" | "ExpiredTokenException" => {
            "check the credentials of the client, and the clock of this machine"
        }
        "ProvisionedThroughputExceededException"
        | "RequestLimitExceeded"
        | "ThrottlingException" => {
            "the table or the account has reached its limit: bill the table on demand, or raise \
             its capacity"
        }
        "ValidationException" if message.contains("schema") || message.contains("key") => {
            "the table must have a partition key and a sort key, both of them strings: give their \
             names to `DynamoDbStore::with_key_names`"
        }
        _ => return None,
    })
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self {
            text: error.to_string(),
            source: Some(error.into()),
            effect: Effect::None,
            is_of_start_key: false,
        }
    }
}

/// Why a conditional write was not done.
pub(super) enum Unwritten {
    /// The condition does not hold. The item is what DynamoDB has, if it said so.
    Refused(Option<Item>),
    Failed(Failure),
}

/// The error of a call that has a condition.
pub(super) trait Conditional: Sized {
    /// The item of an error that says that the condition does not hold.
    fn refused(self) -> Result<Option<Item>, Self>;
}

macro_rules! conditional {
    ($($error:ident)*) => {
        $(
            impl Conditional for $error {
                fn refused(self) -> Result<Option<Item>, Self> {
                    match self {
                        Self::ConditionalCheckFailedException(error) => Ok(error.item),
                        other => Err(other),
                    }
                }
            }
        )*
    };
}

conditional! { DeleteItemError PutItemError UpdateItemError }

impl<E> From<SdkError<E>> for Unwritten
where
    E: Conditional + ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    fn from(error: SdkError<E>) -> Self {
        const REFUSED: &str = "ConditionalCheckFailedException";
        match error {
            SdkError::ServiceError(error) if error.err().code() == Some(REFUSED) => {
                Self::Refused(error.into_err().refused().unwrap_or_default())
            }
            error => Self::Failed(Failure::of(error)),
        }
    }
}

/// How often the store makes a write. The client itself makes each of them once, because it cannot
/// say whether the first one was done.
pub(super) struct Attempts {
    left: u32,
    pause: Duration,
    is_uncertain: bool,
    refusals: u32,
}

impl Attempts {
    /// As many attempts as the client makes for a read.
    pub(super) fn of(store: &DynamoDbStore) -> Self {
        let retries = store.reader.config().retry_config();
        Self {
            left: retries.map_or(3, |retries| retries.max_attempts()),
            pause: FIRST_PAUSE,
            is_uncertain: false,
            refusals: 0,
        }
    }

    /// Waits before the next attempt. If there is none, the answer is the failure.
    pub(super) async fn wait(&mut self, failure: Failure) -> Result<(), Failure> {
        self.is_uncertain |= failure.effect() == Effect::Unknown;
        self.left = self.left.saturating_sub(1);
        if self.left == 0 || failure.effect() == Effect::None {
            return Err(failure);
        }
        // Writers that were refused together should not come back together.
        let part = RandomState::new().hash_one(0) % 512;
        sleep(self.pause.mul_f64(0.5 + part as f64 / 1024.0)).await;
        self.pause *= 2;
        Ok(())
    }

    /// Counts an attempt whose condition did not hold, so that the store makes another one. If there
    /// were too many, the answer is a failure.
    pub(super) fn count_refusal(&mut self) -> Result<(), Failure> {
        self.refusals += 1;
        match self.refusals {
            ..MOST_REFUSALS => Ok(()),
            _ => Err(Failure::new(format!(
                "{MOST_REFUSALS} attempts to write an item were refused, because the item was \
                 another one each time; try again later, and make sure that nobody else writes to the \
                 store's items"
            ))),
        }
    }

    /// Whether an earlier attempt may have been done.
    pub(super) fn are_uncertain(&self) -> bool {
        self.is_uncertain
    }
}
