//! The side of the cluster: reads questions, answers each when it is settled.

use std::future::Future;
use std::io::{self, BufRead, Write};

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{Answered, Asked, Outcome, Request};

/// Lines that wait to be looked at, or to be written.
const WAITING: usize = 64;

/// Questions that are not settled yet; more are not looked at until one is.
const UNSETTLED: usize = 1024;

/// Answers questions until they end; those that are not settled then are dropped. Cancel safe.
pub async fn answer<F>(mut questions: mpsc::Receiver<String>, answers: mpsc::Sender<String>, ask: impl Fn(Request) -> F)
where
    F: Future<Output = Result<Value, String>> + Send + 'static,
{
    let mut asked = JoinSet::new();
    loop {
        tokio::select! {
            line = questions.recv(), if asked.len() < UNSETTLED => {
                let Some(line) = line else { return };
                let answers = answers.clone();
                match parse(&line) {
                    Ok(Asked { id, request }) => {
                        let outcome = ask(request);
                        asked.spawn(async move { say(&answers, id, outcome.await).await });
                    }
                    Err((id, error)) => {
                        asked.spawn(async move { say(&answers, id, Err(error)).await });
                    }
                }
            }
            Some(settled) = asked.join_next() => {
                if let Err(error) = settled {
                    tracing::error!(%error, "a question panicked");
                }
            }
        }
    }
}

/// A question, or its number, 0 if it has none, and what is wrong with it.
fn parse(line: &str) -> Result<Asked, (u64, String)> {
    let value: Value = serde_json::from_str(line).map_err(|error| (0, format!("not a question: {error}")))?;
    let id = value["id"].as_u64().unwrap_or(0);
    serde_json::from_value(value).map_err(|error| (id, format!("not a question: {error}")))
}

async fn say(answers: &mpsc::Sender<String>, id: u64, outcome: Result<Value, String>) {
    let outcome = outcome.map_or_else(Outcome::Error, Outcome::Ok);
    // Nobody listens any more when the cluster ends.
    answers.send(json!(Answered { id, outcome }).to_string()).await.ok();
}

/// The lines of a reader; they end with it. On a thread of its own, as reading a standard input blocks.
pub fn read(input: impl BufRead + Send + 'static) -> io::Result<mpsc::Receiver<String>> {
    let (line_tx, lines) = mpsc::channel(WAITING);
    let name = "control-input".to_owned();
    std::thread::Builder::new().name(name).spawn(move || {
        for line in input.lines().map_while(Result::ok) {
            if line_tx.blocking_send(line).is_err() {
                return;
            }
        }
    })?;
    Ok(lines)
}

/// Writes lines, each at once. On a thread of its own, as whoever reads may be slow.
pub fn write(mut output: impl Write + Send + 'static) -> io::Result<mpsc::Sender<String>> {
    let (line_tx, mut lines) = mpsc::channel::<String>(WAITING);
    let name = "control-output".to_owned();
    std::thread::Builder::new().name(name).spawn(move || {
        while let Some(line) = lines.blocking_recv() {
            if writeln!(output, "{line}").and_then(|()| output.flush()).is_err() {
                return;
            }
        }
    })?;
    Ok(line_tx)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::Notify;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    async fn next(answers: &mut mpsc::Receiver<String>) -> Value {
        let line = tokio::time::timeout(LIMIT, answers.recv()).await.unwrap().unwrap();
        serde_json::from_str(&line).unwrap()
    }

    #[tokio::test]
    async fn each_question_is_answered_when_it_is_settled() {
        let (question_tx, questions) = mpsc::channel(8);
        let (answer_tx, mut answers) = mpsc::channel(8);
        let slow = std::sync::Arc::new(Notify::new());
        let settled = slow.clone();
        let ask = move |request| {
            let settled = settled.clone();
            async move {
                if request == Request::AddNode {
                    settled.notified().await;
                    return Ok(json!("node2"));
                }
                Err("no".to_owned())
            }
        };
        let serving = tokio::spawn(answer(questions, answer_tx, ask));
        for line in [r#"{"id":1,"do":"add_node"}"#, r#"{"id":2,"do":"compact"}"#] {
            question_tx.send(line.to_owned()).await.unwrap();
        }
        assert_eq!(next(&mut answers).await, json!({"id": 2, "error": "no"}));
        question_tx.send(r#"{"id":3,"do":"dance"}"#.to_owned()).await.unwrap();
        let odd = next(&mut answers).await;
        assert!(odd["id"] == 3 && odd["error"].as_str().unwrap().starts_with("not a question: "), "{odd}");
        question_tx.send("\u{0}".to_owned()).await.unwrap();
        assert_eq!(next(&mut answers).await["id"], 0);
        slow.notify_one();
        assert_eq!(next(&mut answers).await, json!({"id": 1, "ok": "node2"}));
        drop(question_tx);
        tokio::time::timeout(LIMIT, serving).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn lines_pass_between_threads_and_the_runtime() {
        let mut lines = read(io::Cursor::new("one\ntwo\n")).unwrap();
        let (reader, writer) = io::pipe().unwrap();
        let output = write(writer).unwrap();
        while let Some(line) = tokio::time::timeout(LIMIT, lines.recv()).await.unwrap() {
            output.send(line).await.unwrap();
        }
        drop(output);
        assert_eq!(io::read_to_string(reader).unwrap(), "one\ntwo\n");
    }
}
