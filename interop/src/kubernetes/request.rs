//! Requests to the API server with curl(1).

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::lab::Host;

/// How long a server may take from its first answer to its first successful one.
const BEGINNING: Duration = Duration::from_secs(30);

/// A client of the API server, with a token.
#[derive(Debug)]
pub struct Api<'a> {
    host: &'a Host,
    url: String,
    ca: String,
    token: String,
}

impl<'a> Api<'a> {
    pub(super) fn new(host: &'a Host, url: String, ca: String, token: String) -> Self {
        Self { host, url, ca, token }
    }

    /// Sends a request, and returns the status and the body.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn send(
        &self,
        method: &str,
        path: &str,
        media_type: &str,
        body: &str,
    ) -> Result<(u16, String)> {
        let mut curl = self.host.command("curl");
        curl.args(["-sS", "--max-time", "20", "--cacert", &self.ca, "-X", method]);
        curl.args(["-H", &format!("Authorization: Bearer {}", self.token)]);
        curl.args(["-H", &format!("Content-Type: {media_type}"), "-w", "\n%{http_code}"]);
        if !body.is_empty() {
            curl.args(["--data-binary", "@-"]);
        }
        curl.arg(format!("{}{path}", self.url));
        curl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = curl.spawn().context("start curl")?;
        let mut input = child.stdin.take().context("curl has no input")?;
        input.write_all(body.as_bytes())?;
        drop(input);
        let output = child.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (text, code) = text.rsplit_once('\n').unwrap_or(("", ""));
        let error = String::from_utf8_lossy(&output.stderr);
        let code: u16 = code.trim().parse().with_context(|| format!("{path}: {error}"))?;
        ensure!(code != 0, "{method} {path}: {}", error.trim());
        Ok((code, text.to_owned()))
    }

    fn expect(&self, method: &str, path: &str, media_type: &str, body: &str) -> Result<Value> {
        // A server that has just started answers so; other tests cover how margay handles it.
        let end = Instant::now() + BEGINNING;
        loop {
            let (code, text) = self.send(method, path, media_type, body)?;
            if matches!(code, 429 | 503) && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(500));
                continue;
            }
            ensure!((200..300).contains(&code), "{method} {path}: {code} {text}");
            return Ok(serde_json::from_str(&text).unwrap_or(Value::Null));
        }
    }

    /// Sends a GET request, and returns the status and the body.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        self.send("GET", path, "application/json", "")
    }

    /// Gets an object.
    ///
    /// # Errors
    /// When there is none.
    pub fn object(&self, path: &str) -> Result<Value> {
        self.expect("GET", path, "application/json", "")
    }

    /// Creates an object.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn post(&self, path: &str, object: &Value) -> Result<Value> {
        self.expect("POST", path, "application/json", &object.to_string())
    }

    /// Changes an object.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn patch(&self, path: &str, change: &Value) -> Result<Value> {
        self.expect("PATCH", path, "application/merge-patch+json", &change.to_string())
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn delete(&self, path: &str) -> Result<()> {
        self.expect("DELETE", path, "application/json", "").map(drop)
    }

    /// Creates or changes many objects, eight at a time.
    ///
    /// # Errors
    /// When the server refuses one.
    pub fn send_many(&self, method: &str, objects: &[(String, Value)]) -> Result<()> {
        self.send_all(method, objects, &["--parallel", "--parallel-max", "8"])
    }

    /// As [`Api::send_many`], one after the other, at most `per_second` a second.
    ///
    /// # Errors
    /// When the server refuses one.
    pub fn send_paced(
        &self,
        method: &str,
        objects: &[(String, Value)],
        per_second: f64,
    ) -> Result<()> {
        // curl(1) takes whole numbers.
        let per_minute = format!("{:.0}/m", per_second * 60.0);
        self.send_all(method, objects, &["--rate", &per_minute])
    }

    fn send_all(&self, method: &str, objects: &[(String, Value)], how: &[&str]) -> Result<()> {
        let media_type = match method {
            "PATCH" => "application/merge-patch+json",
            _ => "application/json",
        };
        let folder = self.host.file("many");
        std::fs::create_dir_all(&folder)?;
        let mut config = String::new();
        for (number, (path, object)) in objects.iter().enumerate() {
            let file = folder.join(number.to_string());
            std::fs::write(&file, object.to_string())?;
            // A "next" without a request behind it would be an error that ends all.
            config.push_str(if number == 0 { "" } else { "next\n" });
            config.push_str(&format!(
                "url = \"{}{path}\"\nrequest = \"{method}\"\ncacert = \"{}\"\n\
                 header = \"Authorization: Bearer {}\"\nheader = \"Content-Type: {media_type}\"\n\
                 data-binary = \"@{}\"\noutput = \"/dev/null\"\nfail\n",
                self.url,
                self.ca,
                self.token,
                file.display()
            ));
        }
        let path = folder.join("config");
        std::fs::write(&path, config)?;
        let path = path.display().to_string();
        self.host.run("curl", &[how, &["-sS", "-K", &path]].concat())?;
        Ok(std::fs::remove_dir_all(folder)?)
    }
}
