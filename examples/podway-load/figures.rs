//! Measured things as JSON.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::{Value, json};

/// Bytes of one flow, and in which time.
#[derive(Clone, Copy, Debug)]
pub struct Moved {
    pub bytes: u64,
    pub took: Duration,
}

impl Moved {
    pub fn since(began: Instant, bytes: u64) -> Moved {
        Moved { bytes, took: began.elapsed() }
    }

    pub fn mbit(self) -> f64 {
        self.bytes as f64 * 8.0 / self.took.as_secs_f64() / 1e6
    }

    pub fn value(self) -> Value {
        json!({ "bytes": self.bytes, "seconds": self.took.as_secs_f64(), "mbit": self.mbit() })
    }
}

/// What flows moved beside each other.
pub fn together(flows: &[Moved]) -> Result<Value> {
    let mut each: Vec<f64> = flows.iter().map(|flow| flow.mbit()).collect();
    each.sort_by(f64::total_cmp);
    let Some(slowest) = each.first().copied() else { bail!("there was no flow") };
    let all: f64 = each.iter().sum();
    let mean = all / each.len() as f64;
    let bytes: u64 = flows.iter().map(|flow| flow.bytes).sum();
    let share = if mean > 0.0 { slowest / mean } else { 0.0 };
    Ok(json!({
        "flows": each.len(), "bytes": bytes, "mbit": all, "mean_mbit": mean, "slowest_mbit": slowest,
        "slowest_share": share, "each_mbit": each,
    }))
}

/// The middle and the tail.
pub fn quantiles(mut times: Vec<Duration>) -> Result<Value> {
    times.sort();
    let at = |q: f64| times.get((times.len() as f64 * q) as usize).map(Duration::as_secs_f64);
    let (Some(p50), Some(p99), Some(max)) = (at(0.5), at(0.99), times.last()) else { bail!("nothing was measured") };
    let max = max.as_secs_f64();
    Ok(json!({ "count": times.len(), "p50_ms": p50 * 1e3, "p99_ms": p99 * 1e3, "max_ms": max * 1e3 }))
}
