//! What was measured, as a table for people and one line of JSON for programs. A figure has a key, a
//! unit and, where the project promises something, a target; a missed target is listed by name.

#![allow(dead_code, reason = "each program uses a part of this")]

use std::borrow::Cow;
use std::fs;

use serde_json::{Map, Value, json};

/// What a figure must be.
#[derive(Clone, Copy)]
pub enum Target {
    AtLeast(f64),
    AtMost(f64),
    Below(f64),
}

impl Target {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(limit) => value >= limit,
            Self::AtMost(limit) => value <= limit,
            Self::Below(limit) => value < limit,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtLeast(limit) => format!(">= {limit}"),
            Self::AtMost(limit) => format!("<= {limit}"),
            Self::Below(limit) => format!("< {limit}"),
        }
    }
}

enum Line {
    Title(String),
    Figure {
        label: Cow<'static, str>,
        value: f64,
        unit: &'static str,
        target: Option<Target>,
    },
    Note(String),
}

pub struct Report {
    lines: Vec<Line>,
    /// The section that figures are being added to.
    section: &'static str,
    json: Map<String, Value>,
}

impl Report {
    /// Begins with what the machine is and how busy it was before.
    pub fn new() -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let model = cpu_model();
        let load = load_average();
        let mut json = Map::new();
        json.insert(
            "machine".to_owned(),
            json!({"cpu": model, "cpus": cpus, "load_average_before": load}),
        );
        let machine = format!("{cpus} CPUs, {model}; load average {load} before the run");
        let mut lines = vec![Line::Title("machine".to_owned()), Line::Note(machine)];
        if load > 0.5 {
            lines.push(Line::Note(
                "the machine was not idle: figures below may be those of its other work".to_owned(),
            ));
        }
        Self {
            lines,
            section: "machine",
            json,
        }
    }

    /// Starts the group of figures that `key` names in the JSON.
    pub fn section(&mut self, key: &'static str, title: &str) {
        eprintln!("measuring: {title}");
        self.section = key;
        self.json.insert(key.to_owned(), json!({}));
        self.lines.push(Line::Title(title.to_owned()));
    }

    pub fn figure(
        &mut self,
        key: &str,
        label: impl Into<Cow<'static, str>>,
        value: f64,
        unit: &'static str,
    ) {
        self.add(key, label.into(), (value, unit), None);
    }

    pub fn promise(
        &mut self,
        key: &str,
        label: &'static str,
        measured: (f64, &'static str),
        target: Target,
    ) {
        self.add(key, label.into(), measured, Some(target));
    }

    fn add(
        &mut self,
        key: &str,
        label: Cow<'static, str>,
        (value, unit): (f64, &'static str),
        target: Option<Target>,
    ) {
        self.detail(key, json!(rounded(value)));
        self.lines.push(Line::Figure {
            label,
            value,
            unit,
            target,
        });
    }

    /// For people only.
    pub fn note(&mut self, text: impl Into<String>) {
        self.lines.push(Line::Note(text.into()));
    }

    /// For programs only.
    pub fn detail(&mut self, key: &str, value: Value) {
        self.json[self.section][key] = value;
    }

    /// Labels of the figures that are not what was promised.
    pub fn missed(&self) -> Vec<String> {
        let mut title = "";
        let mut missed = Vec::new();
        for line in &self.lines {
            match line {
                Line::Title(text) => title = text,
                Line::Figure {
                    label,
                    value,
                    unit,
                    target: Some(target),
                } if !target.is_met(*value) => missed.push(format!(
                    "{title}: {label} is {} {unit}, wanted {}",
                    readable(*value),
                    target.text()
                )),
                _ => {}
            }
        }
        missed
    }

    pub fn print(&self) {
        for line in &self.lines {
            match line {
                Line::Title(text) => println!("\n{text}"),
                Line::Note(text) => println!("  {text}"),
                Line::Figure {
                    label,
                    value,
                    unit,
                    target,
                } => {
                    let verdict = target.map_or(String::new(), |target| {
                        let met = if target.is_met(*value) {
                            "met"
                        } else {
                            "MISSED"
                        };
                        format!("target {} {met}", target.text())
                    });
                    let row = format!("  {label:<48}{:>11} {unit:<10}{verdict}", readable(*value));
                    println!("{}", row.trim_end());
                }
            }
        }
        let missed = self.missed();
        println!();
        for target in &missed {
            println!("missed: {target}");
        }
        if missed.is_empty() {
            println!("every target is met");
        }
        let mut json = self.json.clone();
        json.insert("missed".to_owned(), json!(missed));
        println!("{}", Value::Object(json));
    }
}

fn readable(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.1}"),
        size if size >= 10.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Thousandths: finer than anything here is known.
pub fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

fn cpu_model() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or_else(
        || std::env::consts::ARCH.to_owned(),
        |(_, name)| name.trim().to_owned(),
    )
}

fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").expect("/proc/loadavg");
    let minute = text.split_whitespace().next();
    minute
        .and_then(|minute| minute.parse().ok())
        .expect("a load average")
}
