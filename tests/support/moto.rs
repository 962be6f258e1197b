//! AWS Secrets Manager as moto serves it, and a stand-in that only fails.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::{free_port, wait_for};

/// A running moto server.
pub struct Moto {
    child: Child,
    address: String,
}

impl Moto {
    /// Starts it.
    ///
    /// # Panics
    /// When it is not installed.
    pub fn start() -> Self {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.unwrap_or_else(|| {
            PathBuf::from(std::env::var_os("HOME").expect("HOME")).join(".cache")
        });
        let program = cache.join("kalshi-moto/venv/bin/moto_server");
        assert!(program.exists(), "{} is missing: make test installs it", program.display());
        let port = free_port();
        let child = Command::new(program)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start moto");
        let address = format!("127.0.0.1:{port}");
        wait_for("moto", || std::net::TcpStream::connect(&address).ok());
        Self { child, address }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// One call of the API, unsigned, which moto takes.
    pub fn call(&self, action: &str, arguments: &serde_json::Value) -> serde_json::Value {
        let body = arguments.to_string();
        let head = format!(
            "x-amz-target: secretsmanager.{action}\r\ncontent-type: application/x-amz-json-1.1\r\n\
             authorization: AWS4-HMAC-SHA256 Credential=x/20261122/us-east-1/secretsmanager/aws4_request, \
             SignedHeaders=host, Signature=x\r\n"
        );
        let mut stream = std::net::TcpStream::connect(&self.address).expect("connect to moto");
        let (address, length) = (&self.address, body.len());
        write!(
            stream,
            "POST / HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{head}content-length: {length}\r\n\r\n{body}"
        )
        .expect("ask moto");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("its answer");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{action}: {error}: {answer}"))
    }

    /// The version that has a label.
    pub fn labelled(&self, secret: &str, label: &str) -> Option<String> {
        let asked = serde_json::json!({ "SecretId": secret, "VersionStage": label });
        let answer = self.call("GetSecretValue", &asked);
        answer["SecretString"].as_str().map(str::to_owned)
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Listens and answers every request with this error of Secrets Manager, for the life of the process.
pub fn failing(code: &'static str, message: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let mut head = [0; 65536];
            let _asked = stream.read(&mut head);
            let body = format!("{{\"__type\":\"{code}\",\"message\":\"{message}\"}}");
            let _answered = write!(
                stream,
                "HTTP/1.1 400 Bad Request\r\ncontent-type: application/x-amz-json-1.1\r\n\
                 connection: close\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
        }
    });
    format!("http://{address}")
}
