//! Measures `cloakroom` and other session layers side by side. Run it without arguments to get the
//! list of commands.

mod contenders;
#[cfg(feature = "peers")]
mod contention;
mod count;
#[cfg(feature = "peers")]
mod feed;
mod gate;
#[cfg(feature = "peers")]
mod load;
#[cfg(feature = "login")]
mod login;
#[cfg(feature = "peers")]
mod near;
#[cfg(feature = "peers")]
mod networked;
#[cfg(feature = "peers")]
mod plots;
#[cfg(feature = "peers")]
mod readme;
mod ready;
#[cfg(feature = "peers")]
mod report;
#[cfg(any(feature = "peers", test))]
mod results;
mod scenario;
mod size;
#[cfg(feature = "peers")]
mod sizing;
mod threads;
mod time;
#[cfg(any(feature = "peers", test))]
#[cfg_attr(
    not(feature = "peers"),
    expect(dead_code, reason = "its tests need no peers")
)]
mod toolchain;

use std::env;
use std::process::ExitCode;

use contenders::Contender;
use ready::Result;
use scenario::Scenario;

const USAGE: &str = "\
cargo run --release -p cloakroom-bench -- COMMAND

  all             measures all of the following, writes bench/results.json, and shows it as `show` does
  all PART...     measures only these parts of the file: machine, versions, in_process, threads, size,
                  networked, at_once, contention
  show            shows bench/results.json in bench/plots, README.md, bench/README.md and docs/comparison.md
  time            nanoseconds a request, of all contenders
  count           instructions and allocations a request, of all contenders (needs valgrind)
  threads         what a second thread brings
  size            what a million sessions in memory cost
  networked [STORE...]
                  requests over these of redis, sqlite, postgres and mysql, beside other layers
                  (needs the servers)
  at-once         requests over each store, with 1, 8, 64 and 512 in flight (needs the servers)
  near            what a near cache saves, how fast an end gets to another node, and what a waiting
                  socket costs (needs the servers)
  contention      many requests on one session, over each store (needs the servers)

  encryption      what encryption at rest costs, over Redis (needs the server)

  sizing [SESSIONS [STORE...]]
                  bytes of a session in each store, and the time of calls about all sessions (needs the
                  servers)

  feed            what a feed costs writes, over each store that has one (needs the servers)

  gate            compares instructions and allocations with bench/figures.json (needs valgrind; with the
                  feature `dbsc`, also those of a bound session)
  gate --write    writes them there

  login           instructions and allocations of a read behind a guard (needs valgrind, and the
                  feature `login`)

  run CONTENDER SCENARIO REQUESTS
                  nothing but these requests, for a profiler
  run-over STORE SCENARIO REQUESTS
                  the same with cloakroom over sqlite, postgres, mysql, redis or memcached, 64 in flight

Without the feature `peers`, on by default, there are `gate`, `time`, `count`, `threads`, `size` and `run`.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match command(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn command(arguments: &[&str]) -> Result<()> {
    match arguments {
        ["gate"] => gate::run(false),
        ["gate", "--write"] => gate::run(true),
        #[cfg(feature = "login")]
        ["login"] => login::run(),
        #[cfg(feature = "login")]
        ["run-login", path, requests] => {
            one_thread()?.block_on(login::requests(path, requests.parse()?))
        }
        ["time"] => {
            for (scenario, times) in one_thread()?.block_on(time::measure())? {
                println!("{scenario}");
                for (contender, nanos) in times {
                    println!("  {contender:<16} {:>8.0} {:>8.0}", nanos.p10, nanos.median);
                }
            }
            Ok(())
        }
        ["count"] => {
            for scenario in Scenario::ALL {
                println!("{scenario}");
                for &contender in Contender::ALL {
                    let cost = count::measure(contender, scenario)?;
                    println!(
                        "  {contender:<16} {:>8.0} {:>8.2}",
                        cost.instructions, cost.allocations
                    );
                }
            }
            Ok(())
        }
        ["threads"] => {
            for it in threads::measure()? {
                println!("{} {:<16} {:.2}", it.scenario, it.contender, it.two_threads);
            }
            Ok(())
        }
        #[cfg(feature = "peers")]
        ["all"] => show(&report::make(&report::PARTS)?),
        #[cfg(feature = "peers")]
        ["all", parts @ ..] => show(&report::make(parts)?),
        #[cfg(feature = "peers")]
        ["show"] => show(&report::read()?),
        #[cfg(feature = "peers")]
        ["contention"] => {
            for it in two_threads()?.block_on(contention::measure())? {
                println!("{it:?}");
            }
            Ok(())
        }
        #[cfg(feature = "peers")]
        ["networked", stores @ ..] => {
            let stores = if stores.is_empty() {
                &networked::STORES
            } else {
                stores
            };
            for it in two_threads()?.block_on(networked::measure(stores))? {
                println!("{it:?}");
            }
            Ok(())
        }
        #[cfg(feature = "peers")]
        ["encryption"] => {
            for it in two_threads()?.block_on(networked::encryption())? {
                println!("{it:?}");
            }
            Ok(())
        }
        #[cfg(feature = "peers")]
        ["at-once"] => {
            for it in two_threads()?.block_on(networked::at_once())? {
                println!("{it:?}");
            }
            Ok(())
        }
        #[cfg(feature = "peers")]
        ["feed"] => {
            for it in two_threads()?.block_on(feed::measure())? {
                println!("{it:?}");
            }
            Ok(())
        }
        #[cfg(feature = "peers")]
        ["sizing", sizing @ ..] => {
            let (sessions, stores) = match sizing {
                [] => (100_000, &sizing::STORES[..]),
                [sessions] => (sessions.parse()?, &sizing::STORES[..]),
                [sessions, stores @ ..] => (sessions.parse()?, stores),
            };
            for store in stores {
                two_threads()?.block_on(sizing::measure(store, sessions))?;
            }
            Ok(())
        }
        ["size"] => {
            for it in size::measure()? {
                println!("{it:?}");
            }
            Ok(())
        }
        ["fill", contender, sessions] => {
            let contender = Contender::named(contender).ok_or(USAGE)?;
            size::fill(contender, sessions.parse()?)
        }
        #[cfg(feature = "peers")]
        ["near"] => two_threads()?.block_on(near::measure()),
        #[cfg(feature = "peers")]
        ["run-over", store, scenario, requests] => {
            let kind = networked::kind(store).ok_or(USAGE)?;
            let requests = requests.parse()?;
            two_threads()?.block_on(networked::run(kind, scenario, requests))
        }
        ["run", contender, scenario, requests] => {
            let contender = Contender::named(contender).ok_or(USAGE)?;
            let scenario = Scenario::named(scenario).ok_or(USAGE)?;
            let requests: usize = requests.parse()?;
            one_thread()?.block_on(async {
                let mut ready = contender.ready().await?;
                let request = || scenario.request(&ready.cookie);
                let mut prepared: Vec<_> = std::iter::repeat_with(request)
                    .take(requests.max(count::PREPARED))
                    .collect();
                for request in prepared.drain(..requests) {
                    ready.answer(request).await;
                }
                // Freeing the store does not belong to a request.
                std::mem::forget((ready, prepared));
                Ok(())
            })
        }
        _ => Err(USAGE.into()),
    }
}

/// Shows the report in pictures, in the two READMEs, and on the page of the comparison.
#[cfg(feature = "peers")]
fn show(report: &report::Report) -> Result<()> {
    plots::draw(report)?;
    readme::write(report)
}

#[cfg(feature = "peers")]
fn two_threads() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?)
}

fn one_thread() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}
