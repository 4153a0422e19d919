//! The sequential model of a session. A search looks for an order of calls that explains what the
//! clients saw.
//!
//! A call loads the session, and may then write it. These are two steps. Each step takes effect at
//! one moment between the call's begin and the call's answer. Steps of other calls may come between
//! the two. If the answer to a write was lost, the write may take effect at any time after the call
//! began, or never.
//!
//! The search is the one of Wing and Gong. As Lowe proposed, it remembers the states that it has
//! visited.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde::{Deserialize, Serialize};

/// The number of states that a search tries. It is far more than the tests' sessions need. A test
/// that fails still ends soon.
const LONGEST_SEARCH: usize = 200_000;

/// The key of the counter.
const COUNTER: &str = "visits";

/// What a session holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Content {
    pub(crate) values: BTreeMap<String, String>,
    pub(crate) user: Option<String>,
}

impl Content {
    /// Whether the session belongs to another user, so that a login of this user does not keep it.
    fn is_of_other(&self, user: &str) -> bool {
        self.user.as_ref().is_some_and(|own| own != user)
    }
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Read,
    Insert(&'static str, String),
    Count,
    Remove(&'static str),
    Regenerate,
    LogIn(String),
    LogOut,
}

impl Operation {
    /// The path of the operation in the tests' application.
    pub(crate) fn path(&self) -> String {
        match self {
            Self::Read => "/".to_owned(),
            Self::Insert(key, value) => format!("/insert/{key}/{value}"),
            Self::Count => format!("/update/{COUNTER}"),
            Self::Remove(key) => format!("/remove/{key}"),
            Self::Regenerate => "/regenerate".to_owned(),
            Self::LogIn(user) => format!("/log_in/{user}"),
            Self::LogOut => "/log_out".to_owned(),
        }
    }

    /// What the application answers if the session holds this content.
    pub(crate) fn body(&self, content: &Content) -> String {
        match self {
            Self::Read => "untouched".to_owned(),
            Self::Count => self.on(content.clone()).values[COUNTER].clone(),
            Self::Remove(key) => match content.values.get(*key) {
                Some(value) => value.clone(),
                None => "nothing".to_owned(),
            },
            Self::Insert(..) | Self::Regenerate | Self::LogIn(_) | Self::LogOut => {
                "done".to_owned()
            }
        }
    }

    /// The content after the operation, if this was the content before.
    fn on(&self, mut content: Content) -> Content {
        match self {
            Self::Insert(key, value) => {
                content.values.insert((*key).to_owned(), value.clone());
            }
            Self::Count => {
                let count = content.values.get(COUNTER).map(|n| n.parse::<u64>());
                let count = count.map_or(0, Result::unwrap) + 1;
                content.values.insert(COUNTER.to_owned(), count.to_string());
            }
            Self::Remove(key) => {
                content.values.remove(*key);
            }
            Self::LogIn(user) => content.user = Some(user.clone()),
            Self::Read | Self::Regenerate | Self::LogOut => {}
        }
        content
    }
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Token(pub(crate) String);

impl Token {
    /// The first characters of a token are nearly all of its record id.
    fn session(&self) -> &str {
        &self.0[..20]
    }

    pub(crate) fn is_of_session_of(&self, other: &Self) -> bool {
        self.session() == other.session()
    }
}

/// The first characters show the session, and the last ones show the token.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}…{}", &self.0[..4], &self.0[self.0.len() - 4..])
    }
}

/// The answer that a client got.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Done {
        /// What the session held when it was loaded, if there was one.
        saw: Option<Content>,
        cookie: Cookie,
    },
    /// Another request replaced the token.
    Refused,
    /// The store failed, or the client got no answer.
    Lost,
}

/// What an answer does to the client's cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cookie {
    Stays,
    New(Token),
    Removed,
}

/// What a client did and saw. The times are numbers of one sequence. All of them differ.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) client: String,
    pub(crate) began: u64,
    pub(crate) ended: u64,
    /// The token that the client had.
    pub(crate) token: Option<Token>,
    pub(crate) operation: Operation,
    pub(crate) answer: Answer,
}

/// What happened to the sessions of a store.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) calls: Vec<Call>,
    /// The times when a server that stores nothing on disk crashed: from, and until.
    pub(crate) losses: Vec<(u64, u64)>,
}

/// Something that happens to a session at one moment.
#[derive(Clone, Debug)]
enum Step {
    /// A request makes the session, with its first token. The session holds one of these contents.
    Start(Token, Vec<Content>),
    /// The token is good. The session holds this content, if the content is known.
    Find(Token, Option<Content>),
    /// The token is good. The session belongs to a user other than this one.
    FindOther(Token, String),
    /// The session is live, and its good token is another one.
    FindReplaced(Token),
    FindEnded,
    /// `FindReplaced` or `FindEnded`.
    FindNothing(Token),
    /// A change. If the session has ended, the change has no effect.
    Write(Token, Operation),
    /// The session gets a new token. If the answer was lost, nobody knows this token.
    Replace(Token, Option<Token>, Operation),
    End,
    /// The session has ended, by this call or by another one. The answer does not say which.
    EndOrFindEnded,
    /// The store's server loses all its data.
    Lose,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum State {
    NotYet,
    Live {
        /// The good token. If the answer with it was lost, nobody knows it.
        token: Option<Token>,
        content: Content,
    },
    Ended,
}

impl State {
    fn has(&self, good: &Token) -> bool {
        matches!(self, Self::Live { token, .. } if token.as_ref() == Some(good))
    }
}

impl Step {
    /// Whether the step only reads.
    fn looks(&self) -> bool {
        matches!(
            self,
            Self::Find(..)
                | Self::FindOther(..)
                | Self::FindReplaced(_)
                | Self::FindEnded
                | Self::FindNothing(_)
        )
    }

    /// The possible states after this step. There are none if the step is not possible in `state`.
    fn after(&self, state: &State) -> Vec<State> {
        match (self, state) {
            (Self::Start(token, contents), State::NotYet) => {
                let live = |content: &Content| State::Live {
                    token: Some(token.clone()),
                    content: content.clone(),
                };
                contents.iter().map(live).collect()
            }
            _ => self.after_others(state).into_iter().collect(),
        }
    }

    fn after_others(&self, state: &State) -> Option<State> {
        let is_live = matches!(state, State::Live { .. });
        let stays = |is_possible: bool| is_possible.then(|| state.clone());
        match (self, state) {
            (Self::Find(token, saw), State::Live { content, .. }) => {
                stays(state.has(token) && saw.as_ref().is_none_or(|saw| saw == content))
            }
            (Self::FindOther(token, user), State::Live { content, .. }) => {
                stays(state.has(token) && content.is_of_other(user))
            }
            (Self::FindReplaced(token), _) => stays(is_live && !state.has(token)),
            (Self::FindEnded, _) => stays(*state == State::Ended),
            (Self::FindNothing(token), _) => stays(*state != State::NotYet && !state.has(token)),
            (Self::Write(good, operation), State::Live { token, content }) => {
                state.has(good).then(|| State::Live {
                    token: token.clone(),
                    content: operation.on(content.clone()),
                })
            }
            (Self::Replace(good, new, operation), State::Live { content, .. }) => {
                let switches =
                    matches!(operation, Operation::LogIn(user) if content.is_of_other(user));
                (state.has(good) && !switches).then(|| State::Live {
                    token: new.clone(),
                    content: operation.on(content.clone()),
                })
            }
            (Self::End | Self::EndOrFindEnded, State::Live { .. }) => Some(State::Ended),
            (Self::Write(..) | Self::EndOrFindEnded, State::Ended) => stays(true),
            (Self::Lose, State::Live { .. } | State::Ended) => Some(State::Ended),
            (Self::Lose, State::NotYet) => stays(true),
            _ => None,
        }
    }
}

/// A step of a history.
#[derive(Clone, Debug)]
struct Entry {
    step: Step,
    from: u64,
    /// The time of the answer. Without one, the step may happen at any later time, or never.
    until: Option<u64>,
    /// The step of the same call that comes before this one.
    after: Option<usize>,
}

/// The steps of one session.
#[derive(Debug, Default)]
struct Steps(Vec<Entry>);

impl Steps {
    /// Adds the steps of one call, in their order.
    fn add(&mut self, from: u64, until: Option<u64>, steps: impl IntoIterator<Item = Step>) {
        let mut after = None;
        for step in steps {
            self.0.push(Entry {
                step,
                from,
                until,
                after,
            });
            after = Some(self.0.len() - 1);
        }
    }
}

impl History {
    /// Looks for an order of the steps of each session. The error names a session that has no
    /// order.
    pub(crate) fn explain(&self) -> Result<(), String> {
        let mut sessions: BTreeMap<&str, Steps> = BTreeMap::new();
        for call in &self.calls {
            let Explained { own, started } = self.steps(call).ok_or_else(|| {
                format!("no call of this kind is answered so, whatever happens:\n{call:?}")
            })?;
            if let Some(token) = &call.token {
                let until = match call.answer {
                    Answer::Lost => None,
                    Answer::Done { .. } | Answer::Refused => Some(call.ended),
                };
                let steps = sessions.entry(token.session()).or_default();
                for own in own {
                    steps.add(call.began, until, own);
                }
            }
            if let Some((token, content)) = started {
                let start = Step::Start(token.clone(), content);
                let steps = sessions.entry(token.session()).or_default();
                steps.add(call.began, Some(call.ended), [start]);
            }
        }
        for (session, mut steps) in sessions {
            for &(from, until) in &self.losses {
                steps.add(from, Some(until), [Step::Lose]);
            }
            let mut search = Search::of(&steps.0);
            let problem = match search.go(&vec![false; steps.0.len()], State::NotYet) {
                Some(true) => continue,
                Some(false) => "no order of these calls explains their answers:",
                None => "the search for an order of these calls takes too long:",
            };
            return Err(self.report(problem, session, &search));
        }
        Ok(())
    }

    /// The steps that explain the answer to this call. `None` if no steps explain it.
    fn steps<'a>(&self, call: &'a Call) -> Option<Explained<'a>> {
        use Operation::{Count, Insert, LogIn, LogOut, Read, Regenerate, Remove};
        let operation = &call.operation;
        let Some(token) = &call.token else {
            return of_visitor(call);
        };
        let own = || token.clone();
        let write = || Step::Write(own(), operation.clone());
        let replace = |new| Step::Replace(own(), new, operation.clone());
        let started = |new| Some((new, vec![operation.on(Content::default())]));
        let is_other = |new: &Token| !new.is_of_session_of(token);
        let (steps, started) = match &call.answer {
            Answer::Lost => match operation {
                Read => (vec![], None),
                Insert(..) | Count | Remove(_) => (vec![write()], None),
                Regenerate | LogIn(_) => (vec![replace(None)], None),
                LogOut => (vec![Step::Find(own(), None), Step::End], None),
            },
            Answer::Refused => match operation {
                Insert(..) | Count | Remove(_) | LogOut => (vec![Step::FindReplaced(own())], None),
                Read | Regenerate | LogIn(_) => return None,
            },
            Answer::Done {
                saw: Some(saw),
                cookie,
            } => {
                let find = Step::Find(own(), Some(saw.clone()));
                match (operation, cookie) {
                    (Read, Cookie::Stays) => (vec![find], None),
                    (Remove(key), Cookie::Stays) if !saw.values.contains_key(*key) => {
                        (vec![find], None)
                    }
                    (Insert(..) | Count | Remove(_), Cookie::Stays) => (vec![find, write()], None),
                    (Regenerate, Cookie::Stays) => (vec![find, Step::FindNothing(own())], None),
                    (LogIn(user), Cookie::New(new)) if saw.is_of_other(user) => {
                        if !is_other(new) {
                            return None;
                        }
                        (vec![find, Step::EndOrFindEnded], started(new))
                    }
                    (Regenerate | LogIn(_), Cookie::New(new)) if !is_other(new) => {
                        (vec![find, replace(Some(new.clone()))], None)
                    }
                    // The new session depends on the old one. If another request had replaced the
                    // token, the new session starts from what the login saw. If the session had
                    // ended, the new session starts empty.
                    (LogIn(_), Cookie::New(new)) => {
                        let contents = [saw.clone(), Content::default()];
                        let contents = contents.map(|content| operation.on(content));
                        (
                            vec![find, Step::FindNothing(own())],
                            Some((new, contents.into())),
                        )
                    }
                    (LogOut, Cookie::Removed) => (vec![find, Step::EndOrFindEnded], None),
                    _ => return None,
                }
            }
            Answer::Done { saw: None, cookie } => match (operation, cookie) {
                (Read | Remove(_) | Regenerate, Cookie::Stays) => {
                    (vec![Step::FindNothing(own())], None)
                }
                (LogOut, Cookie::Removed) => (vec![Step::FindEnded], None),
                (Insert(..) | Count, Cookie::New(new)) if is_other(new) => {
                    (vec![Step::FindEnded], started(new))
                }
                (LogIn(_), Cookie::New(new)) if is_other(new) => {
                    (vec![Step::FindNothing(own())], started(new))
                }
                _ => return None,
            },
        };
        let mut own_steps = vec![steps];
        if let (LogIn(user), Answer::Lost) = (operation, &call.answer) {
            // The session may have belonged to another user.
            own_steps.push(vec![Step::FindOther(own(), user.clone()), Step::End]);
        }
        Some(Explained {
            own: own_steps,
            started,
        })
    }

    fn report(&self, problem: &str, session: &str, search: &Search<'_>) -> String {
        let is_of = |token: &Token| token.session() == session;
        let mut lines = vec![problem.to_owned()];
        for call in &self.calls {
            let makes =
                matches!(&call.answer, Answer::Done { cookie: Cookie::New(new), .. } if is_of(new));
            if makes || call.token.as_ref().is_some_and(is_of) {
                lines.push(format!(
                    "{:>5} to {:>5}  {}, with {:?}: {:?} => {:?}",
                    call.began, call.ended, call.client, call.token, call.operation, call.answer
                ));
            }
        }
        lines.extend(self.losses.iter().map(|loss| format!("lost: {loss:?}")));
        let (_, done, state) = &search.furthest;
        lines.push(format!("The longest order leads to {state:?}, without:"));
        for (entry, _) in search.entries.iter().zip(done).filter(|(_, done)| !**done) {
            lines.push(format!("{:>5}  {:?}", entry.from, entry.step));
        }
        lines.join("\n")
    }
}

/// What a call did to the session that it came with, and the session that it made.
struct Explained<'a> {
    /// The steps, in order. If the answer was lost, there may be several such lists.
    own: Vec<Vec<Step>>,
    started: Option<(&'a Token, Vec<Content>)>,
}

/// A call without a token finds no session. It makes a session if it has something to store.
fn of_visitor(call: &Call) -> Option<Explained<'_>> {
    use Operation::{Count, Insert, LogIn, LogOut, Read, Regenerate, Remove};
    let started = match (&call.operation, &call.answer) {
        (_, Answer::Lost) => None,
        (
            Read | Remove(_) | Regenerate | LogOut,
            Answer::Done {
                saw: None,
                cookie: Cookie::Stays,
            },
        ) => None,
        (
            Insert(..) | Count | LogIn(_),
            Answer::Done {
                saw: None,
                cookie: Cookie::New(new),
            },
        ) => Some((new, vec![call.operation.on(Content::default())])),
        _ => return None,
    };
    Some(Explained {
        own: Vec::new(),
        started,
    })
}

struct Search<'a> {
    entries: &'a [Entry],
    been: HashSet<(Vec<bool>, State)>,
    /// The longest order so far: the number of entries, which ones they are, and the state after
    /// them.
    furthest: (usize, Vec<bool>, State),
}

impl<'a> Search<'a> {
    fn of(entries: &'a [Entry]) -> Self {
        Self {
            entries,
            been: HashSet::new(),
            furthest: (0, vec![false; entries.len()], State::NotYet),
        }
    }

    /// Whether the entries that are not done have an order that begins in this state. `None` if the
    /// search takes too long.
    fn go(&mut self, done: &[bool], state: State) -> Option<bool> {
        let mut done = done.to_vec();
        // A step that only reads and is possible in this state can be done now. Doing it later
        // brings nothing more.
        let looks = |this: &Self, next: &usize| {
            this.entries[*next].step.looks() && !this.after(*next, &state).is_empty()
        };
        while let Some(next) = self.open(&done).into_iter().find(|next| looks(self, next)) {
            done[next] = true;
        }
        let count = done.iter().filter(|done| **done).count();
        if count > self.furthest.0 {
            self.furthest = (count, done.clone(), state.clone());
        }
        let is_left = |(entry, done): (&Entry, &bool)| entry.until.is_some() && !done;
        if !self.entries.iter().zip(&done).any(is_left) {
            return Some(true);
        }
        if !self.been.insert((done.clone(), state.clone())) {
            return Some(false);
        }
        if self.been.len() > LONGEST_SEARCH {
            return None;
        }
        for next in self.open(&done) {
            for after in self.after(next, &state) {
                done[next] = true;
                if self.go(&done, after)? {
                    return Some(true);
                }
                done[next] = false;
            }
        }
        Some(false)
    }

    /// The entries that may come next. They began before any of the open entries had ended.
    fn open(&self, done: &[bool]) -> Vec<usize> {
        let left = (0..self.entries.len()).filter(|&entry| !done[entry]);
        let first_end = left
            .clone()
            .filter_map(|left| self.entries[left].until)
            .min();
        left.filter(|&left| {
            let entry = &self.entries[left];
            first_end.is_none_or(|end| entry.from < end)
                && entry.after.is_none_or(|before| done[before])
        })
        .collect()
    }

    /// The possible states after an entry. An entry whose answer was lost may be left out, so it
    /// counts only if it changes something.
    fn after(&self, entry: usize, state: &State) -> Vec<State> {
        let Entry { step, until, .. } = &self.entries[entry];
        let mut after = step.after(state);
        after.retain(|after| until.is_some() || step.looks() || after != state);
        after
    }
}

/// Histories that have an order, and histories that have none.
mod tests {
    use super::Operation::{Count, LogIn, LogOut, Read, Regenerate};
    use super::{Answer, Call, Content, Cookie, History, Operation, Token};

    /// The token that `session/token` names.
    fn token(text: &str) -> Token {
        let (session, token) = text.split_once('/').unwrap();
        Token(format!("{session:.<20}{token:.>4}"))
    }

    fn insert(value: &str) -> Operation {
        Operation::Insert("a", value.to_owned())
    }

    fn ada() -> Operation {
        LogIn("ada".to_owned())
    }

    /// The answer to a request whose session held these values.
    fn saw(values: &[(&str, &str)]) -> Answer {
        let values = values
            .iter()
            .map(|(key, value)| ((*key).into(), (*value).into()));
        Answer::Done {
            saw: Some(Content {
                values: values.collect(),
                user: None,
            }),
            cookie: Cookie::Stays,
        }
    }

    fn counted(visits: &str) -> Answer {
        saw(&[("visits", visits)])
    }

    fn saw_nothing() -> Answer {
        Answer::Done {
            saw: None,
            cookie: Cookie::Stays,
        }
    }

    impl Answer {
        fn of(mut self, new_user: &str) -> Self {
            if let Self::Done { saw: Some(saw), .. } = &mut self {
                saw.user = Some(new_user.to_owned());
            }
            self
        }

        fn with(self, new: Cookie) -> Self {
            match self {
                Self::Done { saw, .. } => Self::Done { saw, cookie: new },
                other => other,
            }
        }

        fn sets(self, new: &str) -> Self {
            self.with(Cookie::New(token(new)))
        }

        fn removes(self) -> Self {
            self.with(Cookie::Removed)
        }
    }

    /// A call between two times. Calls whose times overlap run at the same time.
    fn call(times: (u64, u64), with: &str, operation: Operation, answer: Answer) -> Call {
        Call {
            client: "client".to_owned(),
            began: times.0,
            ended: times.1,
            token: (!with.is_empty()).then(|| token(with)),
            operation,
            answer,
        }
    }

    fn explain(calls: impl IntoIterator<Item = Call>) -> Result<(), String> {
        History {
            calls: calls.into_iter().collect(),
            ..History::default()
        }
        .explain()
    }

    #[track_caller]
    fn assert_order(calls: impl IntoIterator<Item = Call>) {
        explain(calls).unwrap();
    }

    #[track_caller]
    fn assert_no_order(calls: impl IntoIterator<Item = Call>) {
        let error = explain(calls).unwrap_err();
        assert!(error.starts_with("no order of these calls"), "{error}");
    }

    /// A session `s/1` that has counted to 1.
    fn start() -> Call {
        call((0, 1), "", Count, saw_nothing().sets("s/1"))
    }

    #[test]
    fn calls_one_after_the_other_have_their_order() {
        let remove = Operation::Remove("a");
        assert_order([
            start(),
            call((10, 11), "s/1", insert("x"), counted("1")),
            call((20, 21), "s/1", Count, saw(&[("visits", "1"), ("a", "x")])),
            call((30, 31), "s/1", remove, saw(&[("visits", "2"), ("a", "x")])),
            call((40, 41), "s/1", ada(), counted("2").sets("s/2")),
            call(
                (50, 51),
                "s/2",
                Regenerate,
                counted("2").of("ada").sets("s/3"),
            ),
            call((60, 61), "s/3", LogOut, counted("2").of("ada").removes()),
            call((70, 71), "s/3", Read, saw_nothing()),
            call((80, 81), "s/3", insert("y"), saw_nothing().sets("t/1")),
            call((90, 91), "t/1", Read, saw(&[("a", "y")])),
        ]);
    }

    #[test]
    fn an_update_that_is_lost_or_counts_twice_has_no_order() {
        let parallel = |read| {
            [
                start(),
                call((10, 20), "s/1", Count, counted("1")),
                call((11, 21), "s/1", Count, counted("1")),
                call((30, 31), "s/1", Read, counted(read)),
            ]
        };
        assert_no_order(parallel("2"));
        assert_order(parallel("3"));
        assert_no_order(parallel("4"));
    }

    #[test]
    fn a_stale_read_has_no_order() {
        let read_at = |times| {
            [
                start(),
                call((10, 20), "s/1", Count, counted("1")),
                call(times, "s/1", Read, counted("1")),
            ]
        };
        assert_order(read_at((19, 29)));
        assert_no_order(read_at((21, 29)));
    }

    #[test]
    fn reads_that_see_two_writes_in_different_orders_have_none() {
        let reads = |first: &str, second: &str| {
            let read =
                |times, value| call(times, "s/1", Read, saw(&[("visits", "1"), ("a", value)]));
            [
                start(),
                call((10, 50), "s/1", insert("x"), counted("1")),
                call((11, 51), "s/1", insert("y"), counted("1")),
                read((20, 21), first),
                read((60, 61), second),
            ]
        };
        assert_order(reads("x", "y"));
        assert_order(reads("y", "x"));
        assert_order(
            reads("x", "x")
                .into_iter()
                .filter(|call| call.operation != insert("y")),
        );
        // One of the two writes came first. Nobody can see its value again after the other write.
        let [start, x, y, first, last] = reads("x", "y");
        let again = call((62, 63), "s/1", Read, saw(&[("visits", "1"), ("a", "x")]));
        assert_no_order([start, x, y, first, last, again]);
    }

    #[test]
    fn a_lost_write_happens_at_any_time_or_never_and_stays() {
        let reads = |first, second, third| {
            [
                start(),
                call((10, 11), "s/1", Count, Answer::Lost),
                call((20, 21), "s/1", Read, counted(first)),
                call((30, 31), "s/1", Read, counted(second)),
                call((40, 41), "s/1", Read, counted(third)),
            ]
        };
        assert_order(reads("1", "1", "1"));
        assert_order(reads("1", "2", "2"));
        assert_order(reads("2", "2", "2"));
        assert_no_order(reads("1", "2", "1"));
        assert_no_order(reads("1", "2", "3"));
    }

    #[test]
    fn a_read_after_a_logout_that_sees_data_has_no_order() {
        let read_at = |times| {
            [
                start(),
                call((10, 20), "s/1", LogOut, counted("1").removes()),
                call(times, "s/1", Read, counted("1")),
            ]
        };
        assert_order(read_at((19, 29)));
        assert_no_order(read_at((21, 29)));
    }

    #[test]
    fn a_write_during_a_logout_is_dropped_and_does_not_bring_the_session_back() {
        let afterwards = |answer| {
            [
                start(),
                call((10, 30), "s/1", insert("x"), counted("1")),
                call((20, 21), "s/1", LogOut, counted("1").removes()),
                call((40, 41), "s/1", Read, answer),
            ]
        };
        assert_order(afterwards(saw_nothing()));
        assert_no_order(afterwards(saw(&[("visits", "1"), ("a", "x")])));
        assert_no_order(afterwards(saw(&[("a", "x")])));
        // Perhaps the value was never there.
        assert_order([
            start(),
            call((10, 60), "s/1", insert("x"), counted("1")),
            call((20, 21), "s/1", Regenerate, counted("1").sets("s/2")),
            call((30, 31), "s/2", Read, counted("1")),
            call((40, 41), "s/2", LogOut, counted("1").removes()),
        ]);
        // The request loads the session before the end. Otherwise its answer would be the answer to
        // a visitor.
        assert_no_order([
            start(),
            call((10, 11), "s/1", LogOut, counted("1").removes()),
            call((20, 21), "s/1", insert("x"), counted("1")),
        ]);
    }

    #[test]
    fn a_lost_logout_happens_or_not_and_what_has_ended_stays_so() {
        let reads = |first, second| {
            [
                start(),
                call((10, 11), "s/1", LogOut, Answer::Lost),
                call((20, 21), "s/1", Read, first),
                call((30, 31), "s/1", Read, second),
            ]
        };
        assert_order(reads(counted("1"), counted("1")));
        assert_order(reads(counted("1"), saw_nothing()));
        assert_order(reads(saw_nothing(), saw_nothing()));
        assert_no_order(reads(saw_nothing(), counted("1")));
        // A logout with a replaced token ends nothing.
        let after = |times| {
            [
                start(),
                call((10, 20), "s/1", Regenerate, counted("1").sets("s/2")),
                call(times, "s/1", LogOut, Answer::Lost),
                call((40, 41), "s/2", Read, saw_nothing()),
            ]
        };
        assert_order(after((19, 29)));
        assert_no_order(after((21, 29)));
    }

    #[test]
    fn two_good_tokens_have_no_order() {
        let read_at = |times| {
            [
                start(),
                call((10, 20), "s/1", Regenerate, counted("1").sets("s/2")),
                call(times, "s/1", Read, counted("1")),
                call((30, 31), "s/2", Read, counted("1")),
            ]
        };
        assert_order(read_at((19, 29)));
        assert_no_order(read_at((21, 29)));
        // If two requests replace the same token, only one of them gets a new one.
        assert_no_order([
            start(),
            call((10, 20), "s/1", Regenerate, counted("1").sets("s/2")),
            call((11, 21), "s/1", Regenerate, counted("1").sets("s/3")),
        ]);
        assert_order([
            start(),
            call((10, 20), "s/1", Regenerate, counted("1").sets("s/2")),
            call((11, 21), "s/1", Regenerate, counted("1")),
        ]);
    }

    #[test]
    fn a_write_is_refused_only_where_its_token_was_replaced() {
        let refused_at = |times| {
            [
                start(),
                call((10, 20), "s/1", ada(), counted("1").sets("s/2")),
                call(times, "s/1", Count, Answer::Refused),
                call((40, 41), "s/2", Read, counted("1").of("ada")),
            ]
        };
        assert_order(refused_at((11, 19)));
        assert_order(refused_at((21, 29)));
        assert_no_order(refused_at((2, 9)));
        // The refused write changes nothing.
        let [start, login, refused, _] = refused_at((11, 19));
        let counted = call((40, 41), "s/2", Read, counted("2").of("ada"));
        assert_no_order([start, login, refused, counted]);
    }

    #[test]
    fn a_lost_replacement_locks_out_until_a_login() {
        let (lost, reads) = (Answer::Lost, saw_nothing);
        let login = call((40, 41), "s/1", ada(), saw_nothing().sets("t/1"));
        assert_order([
            start(),
            call((10, 11), "s/1", Regenerate, lost.clone()),
            call((20, 21), "s/1", Read, reads()),
            call((30, 31), "s/1", Count, Answer::Refused),
            login.clone(),
            call((50, 51), "t/1", Read, saw(&[]).of("ada")),
        ]);
        // A login in a good session stays in that session.
        assert_no_order([start(), login]);
        // If nobody has the good token, no old token becomes good again.
        assert_no_order([
            start(),
            call((10, 11), "s/1", Regenerate, lost),
            call((20, 21), "s/1", Read, reads()),
            call((30, 31), "s/1", Read, counted("1")),
        ]);
    }

    #[test]
    fn a_logout_wins_over_a_login_of_the_same_token() {
        let afterwards = |answer| {
            [
                start(),
                call((10, 40), "s/1", LogOut, counted("1").removes()),
                call((20, 30), "s/1", ada(), counted("1").sets("s/2")),
                call((50, 51), "s/2", Read, answer),
            ]
        };
        assert_order(afterwards(saw_nothing()));
        assert_no_order(afterwards(counted("1").of("ada")));
    }

    #[test]
    fn a_login_of_another_user_starts_empty_and_ends_the_session_of_the_last() {
        let afterwards = |with: &str, answer| {
            let bob = LogIn("bob".to_owned());
            [
                start(),
                call((10, 11), "s/1", ada(), counted("1").sets("s/2")),
                call((20, 21), "s/2", bob, counted("1").of("ada").sets("t/1")),
                call((30, 31), with, Read, answer),
            ]
        };
        assert_order(afterwards("s/2", saw_nothing()));
        assert_no_order(afterwards("s/2", counted("1").of("ada")));
        assert_order(afterwards("t/1", saw(&[]).of("bob")));
        assert_no_order(afterwards("t/1", counted("1").of("bob")));
    }

    #[test]
    fn a_lost_login_of_another_user_ends_the_session_and_one_of_its_own_replaces_its_token() {
        let afterwards = |user: &str, answer| {
            [
                start(),
                call((10, 11), "s/1", ada(), counted("1").sets("s/2")),
                call((20, 21), "s/2", LogIn(user.to_owned()), Answer::Lost),
                call((30, 31), "s/2", Count, answer),
            ]
        };
        assert_order(afterwards("bob", saw_nothing().sets("t/1")));
        assert_no_order(afterwards("bob", Answer::Refused));
        assert_order(afterwards("bob", counted("1").of("ada")));
        assert_order(afterwards("ada", Answer::Refused));
        assert_no_order(afterwards("ada", saw_nothing().sets("t/1")));
        assert_order(afterwards("ada", counted("1").of("ada")));
    }

    #[test]
    fn a_session_that_vanishes_has_no_order_but_where_everything_was_lost() {
        let mut history = History {
            calls: vec![start(), call((20, 21), "s/1", Read, saw_nothing())],
            ..History::default()
        };
        history.explain().unwrap_err();
        history.losses = vec![(10, 11)];
        history.explain().unwrap();
        history.losses = vec![(30, 31)];
        history.explain().unwrap_err();
        // The lost data does not come back.
        history.calls = vec![start(), call((20, 21), "s/1", Read, counted("1"))];
        history.losses = vec![(10, 11)];
        history.explain().unwrap_err();
    }

    #[test]
    fn a_value_of_another_session_has_no_order() {
        assert_no_order([
            start(),
            call((2, 3), "", insert("x"), saw_nothing().sets("t/1")),
            call((10, 11), "s/1", Read, saw(&[("visits", "1"), ("a", "x")])),
        ]);
    }

    #[test]
    fn an_answer_that_no_call_of_its_kind_has_is_told() {
        for wrong in [
            // A write that made no session.
            call((10, 11), "s/1", Count, saw_nothing()),
            call((10, 11), "", Count, saw_nothing()),
            // A new token that the client did not ask for.
            call((10, 11), "s/1", Count, counted("1").sets("s/2")),
            call((10, 11), "s/1", Read, counted("1").removes()),
            // A login that brings no new token.
            call((10, 11), "s/1", ada(), counted("1")),
            // A visitor without a token sees a session.
            call((10, 11), "", Read, counted("1")),
            // The layer never refuses a read.
            call((10, 11), "s/1", Read, Answer::Refused),
        ] {
            let error = explain([start(), wrong.clone()]).unwrap_err();
            assert!(
                error.starts_with("no call of this kind"),
                "{wrong:?}: {error}"
            );
        }
    }
}
