//! The form with which an administrator finds sessions. Its fields are the query of the list's
//! address, so that a page can be a bookmark, and hidden fields of the form that ends sessions.

use axum::extract::Query;
use axum::http::Uri;
use cloakroom::{Cursor, SessionFilter, Timestamp};
use serde::Deserialize;
use url::form_urlencoded::Serializer;

use crate::pages::Failure;

const DEFAULT_LIMIT: usize = 25;

/// What the form says. An empty field is no condition. A field that nobody knows is an error:
/// somebody who mistypes a name must not end more sessions than they mean.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Fields {
    pub(crate) user: String,
    pub(crate) who: String,
    pub(crate) client: String,
    pub(crate) external_id: String,
    pub(crate) bound: String,
    pub(crate) created_since: String,
    pub(crate) created_before: String,
    pub(crate) seen_since: String,
    pub(crate) seen_before: String,
    pub(crate) limit: String,
    after: String,
    count: String,
    /// Only the form that ends sessions has it.
    keep_own: String,
}

impl Fields {
    pub(crate) fn of(uri: &Uri) -> Result<Self, Failure> {
        let query = Query::<Self>::try_from_uri(uri);
        let query = query.map_err(|error| Failure::Bad(error.body_text()))?;
        Ok(query.0)
    }

    pub(crate) fn of_user(user: &str) -> Self {
        Self {
            user: user.to_owned(),
            ..Self::default()
        }
    }

    /// The conditions, each with the name of its field.
    fn conditions(&self) -> [(&'static str, &str); 9] {
        [
            ("user", &self.user),
            ("who", &self.who),
            ("client", &self.client),
            ("external_id", &self.external_id),
            ("bound", &self.bound),
            ("created_since", &self.created_since),
            ("created_before", &self.created_before),
            ("seen_since", &self.seen_since),
            ("seen_before", &self.seen_before),
        ]
    }

    /// The conditions that are there, for hidden fields.
    pub(crate) fn given(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let conditions = self.conditions().into_iter();
        conditions.filter(|(_, value)| !value.is_empty())
    }

    pub(crate) fn has_condition(&self) -> bool {
        self.given().next().is_some()
    }

    /// Whether the folded part of the form has a condition. Then the page unfolds it.
    pub(crate) fn has_more_conditions(&self) -> bool {
        self.given()
            .any(|(name, _)| !matches!(name, "user" | "who" | "client"))
    }

    pub(crate) fn wants_count(&self) -> bool {
        !self.count.is_empty()
    }

    pub(crate) fn keeps_own(&self) -> bool {
        !self.keep_own.is_empty()
    }

    pub(crate) fn is_first_page(&self) -> bool {
        self.after.is_empty()
    }

    pub(crate) fn after(&self) -> Result<Option<Cursor>, Failure> {
        match &*self.after {
            "" => Ok(None),
            after => Ok(Some(after.parse()?)),
        }
    }

    pub(crate) fn limit(&self) -> Result<usize, Failure> {
        match &*self.limit {
            "" => Ok(DEFAULT_LIMIT),
            limit => match limit.parse() {
                Ok(limit) if (1..=200).contains(&limit) => Ok(limit),
                _ => Err(bad("A page has 1 to 200 sessions.")),
            },
        }
    }

    pub(crate) fn filter(&self) -> Result<SessionFilter, Failure> {
        let mut filter = SessionFilter::new();
        if !self.user.is_empty() {
            filter = filter.user(&self.user);
        }
        match &*self.who {
            "" => {}
            "users" => filter = filter.logged_in(true),
            "visitors" => filter = filter.logged_in(false),
            _ => return Err(bad("“Who” is users or visitors.")),
        }
        if !self.client.is_empty() {
            filter = filter.client(&self.client);
        }
        if !self.external_id.is_empty() {
            filter = filter.external_id(&*self.external_id);
        }
        match &*self.bound {
            "" => {}
            "yes" => filter = filter.device_bound(true),
            "no" => filter = filter.device_bound(false),
            _ => return Err(bad("“Bound to a device” is yes or no.")),
        }
        if let Some(time) = time("Created since", &self.created_since)? {
            filter = filter.created_since(time);
        }
        if let Some(time) = time("Created before", &self.created_before)? {
            filter = filter.created_before(time);
        }
        if let Some(time) = time("Seen since", &self.seen_since)? {
            filter = filter.last_seen_since(time);
        }
        if let Some(time) = time("Not seen since", &self.seen_before)? {
            filter = filter.last_seen_before(time);
        }
        Ok(filter)
    }

    /// The address of this page of the list.
    pub(crate) fn here(&self) -> String {
        self.address("/admin", &[("after", &self.after)])
    }

    pub(crate) fn first_page(&self) -> String {
        self.address("/admin", &[])
    }

    pub(crate) fn next_page(&self, next: &Cursor) -> String {
        self.address("/admin", &[("after", next.as_str())])
    }

    pub(crate) fn counted(&self) -> String {
        self.address("/admin", &[("after", &self.after), ("count", "yes")])
    }

    pub(crate) fn ending(&self) -> String {
        self.address("/admin/end", &[])
    }

    fn address(&self, path: &str, more: &[(&str, &str)]) -> String {
        let mut query = Serializer::new(String::new());
        query.extend_pairs(self.given());
        if !self.limit.is_empty() {
            query.append_pair("limit", &self.limit);
        }
        query.extend_pairs(more.iter().filter(|(_, value)| !value.is_empty()));
        match &*query.finish() {
            "" => path.to_owned(),
            query => format!("{path}?{query}"),
        }
    }
}

fn bad(text: &str) -> Failure {
    Failure::Bad(text.to_owned())
}

/// The time of a field `datetime-local`, such as `2026-03-01T09:30`. It is in UTC.
fn time(label: &str, text: &str) -> Result<Option<Timestamp>, Failure> {
    if text.is_empty() {
        return Ok(None);
    }
    // Browsers leave out the seconds if they are zero.
    let seconds = if text.len() == "2026-03-01T09:30".len() {
        ":00"
    } else {
        ""
    };
    let time = serde_json::from_value(format!("{text}{seconds}Z").into());
    time.map(Some)
        .map_err(|_| Failure::Bad(format!("“{label}” needs a time such as 2026-03-01T09:30.")))
}
