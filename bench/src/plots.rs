//! The pictures of the report.

use std::fs;
use std::path::Path;

use plotters::prelude::*;

use crate::ready::Result;
use crate::report::Report;
use crate::scenario::Scenario;

const SIZE: (u32, u32) = (900, 420);
const FONT: &str = "sans-serif";

/// A contender has the same colour in every picture.
const COLOURS: [(&str, RGBColor); 10] = [
    ("noop", RGBColor(170, 170, 170)),
    ("without a layer", RGBColor(170, 170, 170)),
    ("cloakroom", RGBColor(0, 114, 178)),
    ("tower-sessions", RGBColor(230, 159, 0)),
    ("ruts", RGBColor(0, 158, 115)),
    ("axum_session", RGBColor(204, 121, 167)),
    ("1 at once", RGBColor(198, 219, 239)),
    ("8 at once", RGBColor(107, 174, 214)),
    ("64 at once", RGBColor(33, 113, 181)),
    ("512 at once", RGBColor(8, 48, 107)),
];

/// Bars next to each other: a label, and the value of each contender.
type Group = (String, Vec<(String, f64)>);

pub fn draw(report: &Report) -> Result<()> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("plots");
    fs::create_dir_all(&directory)?;

    let of_scenario = |scenario: Scenario, value: fn(&crate::report::InProcess) -> f64| {
        let all = &report.in_process[&scenario.to_string()];
        let values = all.iter().map(|(name, one)| (name.clone(), value(one)));
        let name = match scenario {
            Scenario::A => "A: no cookie",
            Scenario::B => "B: reads one key",
            Scenario::C => "C: increments",
            Scenario::D => "D: new session",
            Scenario::E => "E: cookie, untouched",
        };
        (name.to_owned(), values.collect())
    };
    let times: Vec<Group> = Scenario::ALL
        .map(|scenario| of_scenario(scenario, |one| one.over_bare))
        .into();
    bars(
        &directory.join("time.svg"),
        "Nanoseconds over bare axum, memory store (less is better; logarithmic)",
        &times,
        Scale::Logarithmic,
    )?;

    let mut throughput: Vec<Group> = Vec::new();
    for (store, what) in [
        ("redis", "B"),
        ("redis", "C"),
        ("sqlite", "B"),
        ("sqlite", "C"),
        ("postgres", "B"),
        ("postgres", "C"),
        ("mysql", "B"),
        ("mysql", "C"),
    ] {
        let of_store = report
            .networked
            .iter()
            .filter(|one| one.store == store && one.what == what)
            .map(|one| (one.contender.clone(), one.requests_a_second));
        throughput.push((format!("{store}, {what}"), of_store.collect()));
    }
    bars(
        &directory.join("throughput.svg"),
        "Requests a second, 64 in flight (more is better)",
        &throughput,
        Scale::Linear,
    )?;

    let mut falling: Vec<Group> = Vec::new();
    for (store, what) in [
        ("sqlite", "B"),
        ("sqlite", "C"),
        ("postgres", "B"),
        ("postgres", "C"),
        ("mysql", "B"),
        ("redis", "B"),
    ] {
        let of_store = report
            .at_once
            .iter()
            .filter(|one| one.store == store && one.what == what && !one.is_one_session)
            .map(|one| (format!("{} at once", one.in_flight), one.requests_a_second));
        falling.push((format!("{store}, {what}"), of_store.collect()));
    }
    bars(
        &directory.join("at_once.svg"),
        "Requests a second, with 1, 8, 64 and 512 in flight (more is better)",
        &falling,
        Scale::Linear,
    )?;

    let memory = report.size.iter();
    let memory = memory.map(|one| (one.contender.clone(), one.bytes_a_session));
    bars(
        &directory.join("memory.svg"),
        "Bytes of memory a session, at 1,000,000 sessions (less is better)",
        &[("memory store".into(), memory.collect())],
        Scale::Linear,
    )
}

#[derive(Clone, Copy, PartialEq)]
enum Scale {
    Linear,
    Logarithmic,
}

impl Scale {
    fn height(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Logarithmic => value.max(1.0).log10(),
        }
    }

    fn value(self, height: f64) -> f64 {
        match self {
            Self::Linear => height,
            Self::Logarithmic => 10_f64.powf(height),
        }
    }
}

fn bars(path: &Path, title: &str, groups: &[Group], scale: Scale) -> Result<()> {
    let values = || groups.iter().flat_map(|(_, bars)| bars);
    let series: Vec<_> = COLOURS
        .iter()
        .filter(|(name, _)| values().any(|(other, _)| other == name))
        .collect();
    let highest = values()
        .filter(|(name, _)| series.iter().any(|(other, _)| other == name))
        .map(|(_, value)| scale.height(*value))
        .fold(0.0, f64::max);
    let lowest = match scale {
        Scale::Linear => 0.0,
        Scale::Logarithmic => 1.5,
    };

    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, (FONT, 18))
        .margin(12)
        .x_label_area_size(30)
        .y_label_area_size(70)
        // On the right there is room for the names of the contenders.
        .build_cartesian_2d(0.0..groups.len() as f64 * 1.2, lowest..highest * 1.12)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(0)
        .y_labels(6)
        .y_label_formatter(&|height| format!("{:.0}", scale.value(*height)))
        .label_style((FONT, 13))
        .draw()?;

    let width = 0.84 / series.len() as f64;
    for (position, (name, colour)) in series.iter().enumerate() {
        let mut rectangles = Vec::new();
        let mut labels = Vec::new();
        for (number, (_, bars)) in groups.iter().enumerate() {
            let Some((_, value)) = bars.iter().find(|(other, _)| other == name) else {
                continue;
            };
            let left = number as f64 + 0.08 + position as f64 * width;
            let height = scale.height(*value);
            rectangles.push(Rectangle::new(
                [(left, lowest), (left + width * 0.92, height)],
                colour.filled(),
            ));
            labels.push(
                EmptyElement::at((left, height)) + Text::new(short(*value), (1, -13), (FONT, 11)),
            );
        }
        let colour = *colour;
        chart
            .draw_series(rectangles)?
            .label(*name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour.filled()));
        chart.draw_series(labels)?;
    }
    let names = groups.iter().enumerate().map(|(number, (name, _))| {
        EmptyElement::at((number as f64 + 0.1, lowest))
            + Text::new(name.clone(), (0, 8), (FONT, 13))
    });
    chart.draw_series(names)?;
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.85))
        .border_style(RGBColor(200, 200, 200))
        .label_font((FONT, 13))
        .draw()?;
    area.present()?;
    Ok(())
}

/// A short form of the number, such as 950 or 12.3k.
fn short(value: f64) -> String {
    if value < 10_000.0 {
        format!("{value:.0}")
    } else {
        format!("{:.1}k", value / 1_000.0)
    }
}
