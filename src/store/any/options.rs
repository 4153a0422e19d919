//! The options of a URL that are for this crate, and not for the store.

use std::borrow::Cow;

use crate::error::StoreError;

/// The units of a size. The longer ones come first.
const UNITS: [(&str, u64); 4] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("", 1),
];

/// Takes `near=64MiB` out of a URL. Returns the rest of the URL, and the size in bytes.
pub(super) fn take_near(url: &str) -> Result<(Cow<'_, str>, Option<u64>), StoreError> {
    // The first question mark begins the options: a password in a URL has it as %3F.
    let Some((before, query)) = url.split_once('?') else {
        return Ok((Cow::Borrowed(url), None));
    };
    let is_near = |option: &&str| option.split('=').next() == Some("near");
    let mut sizes = query.split('&').filter(is_near);
    let Some(option) = sizes.next() else {
        return Ok((Cow::Borrowed(url), None));
    };
    if sizes.next().is_some() {
        return Err(StoreError::new(
            "the URL of the store has two options `near`",
        ));
    }
    let size = option.strip_prefix("near=").and_then(parse_size);
    let size = size.ok_or_else(|| {
        StoreError::new(
            "the option `near` of the store's URL is the size of a near cache, such as near=64MiB",
        )
    })?;
    let rest: Vec<_> = query.split('&').filter(|option| !is_near(option)).collect();
    Ok((Cow::Owned(with_options(before, &rest)), Some(size)))
}

/// Takes `feed=true` out of a URL of PostgreSQL. Returns the rest of the URL, and whether it was
/// there. sqlx would log the option.
#[cfg(feature = "postgres")]
pub(super) fn take_feed(url: &str) -> Result<(Cow<'_, str>, bool), StoreError> {
    let Some((place, options)) = url.split_once('?') else {
        return Ok((Cow::Borrowed(url), false));
    };
    let mut others = Vec::new();
    let mut has_feed = false;
    for option in options.split('&') {
        match option.strip_prefix("feed=") {
            None => others.push(option),
            Some("true") => has_feed = true,
            Some("false") => has_feed = false,
            Some(_) => {
                return Err(StoreError::new(
                    "the option `feed` of a PostgreSQL URL is `true` or `false`",
                ));
            }
        }
    }
    Ok((Cow::Owned(with_options(place, &others)), has_feed))
}

fn with_options(place: &str, options: &[&str]) -> String {
    match options.is_empty() {
        true => place.to_owned(),
        false => format!("{place}?{}", options.join("&")),
    }
}

fn parse_size(text: &str) -> Option<u64> {
    let with_unit = |(unit, bytes): &(&str, u64)| Some((text.strip_suffix(unit)?, *bytes));
    let (number, unit) = UNITS.iter().find_map(with_unit)?;
    // `parse` would take a plus sign.
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = number.parse().ok().filter(|_| is_number)?;
    number.checked_mul(unit).filter(|size| *size > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_the_near_cache_is_taken_out_of_a_url() {
        for (url, rest, size) in [
            ("memory:", "memory:", None),
            ("memory:?near=64MiB", "memory:", Some(64 << 20)),
            ("redis://h/0?near=1GiB", "redis://h/0", Some(1 << 30)),
            (
                "redis://h?a=b&near=512KiB&c=d",
                "redis://h?a=b&c=d",
                Some(512 << 10),
            ),
            ("redis://h?nearby=1&near=7", "redis://h?nearby=1", Some(7)),
            ("redis://h?a=near=1MiB", "redis://h?a=near=1MiB", None),
        ] {
            let (found, bytes) = take_near(url).unwrap();
            assert_eq!((&*found, bytes), (rest, size), "{url}");
        }
        for url in [
            "memory:?near",
            "memory:?near=",
            "memory:?near=0",
            "memory:?near=MiB",
            "memory:?near=+1MiB",
            "memory:?near=64MB",
            "memory:?near=1.5GiB",
            "memory:?near=99999999999GiB",
            "memory:?near=1MiB&near=2MiB",
        ] {
            assert!(
                take_near(url).unwrap_err().to_string().contains("near"),
                "{url}"
            );
        }
    }
}
