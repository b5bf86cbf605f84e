//! A broker in a process of its own, as it is shipped.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use super::database::Database;
use super::within;

/// Starts brokers with settings of their own.
#[derive(Clone, Default)]
pub struct Settings(Vec<(String, String)>);

impl Settings {
    /// Sets `section.key`.
    pub fn with(mut self, key: &str, value: impl ToString) -> Self {
        let name = format!("SEALCAST__{}", key.replace('.', "__").to_uppercase());
        self.0.retain(|(other, _)| *other != name);
        self.0.push((name, value.to_string()));
        self
    }

    /// Sets a variable of the process that is no setting.
    pub fn with_variable(mut self, name: &str, value: impl ToString) -> Self {
        self.0.push((name.to_owned(), value.to_string()));
        self
    }

    /// For one broker on one database.
    pub fn on(database: &Database) -> Self {
        Self::default().with("database.url", database.url())
    }
}

/// A running broker. It is killed when it is dropped.
pub struct Broker {
    child: Child,
    settings: Settings,
    /// `http://…`
    pub public: String,
    /// `http://…`
    pub operator: String,
}

impl Broker {
    /// Starts one on a database, with default settings.
    pub async fn start(database: &Database) -> Self {
        Self::start_with(Settings::on(database)).await
    }

    /// Starts one.
    pub async fn start_with(settings: Settings) -> Self {
        let free = Settings::default().with("server.listen", "127.0.0.1:0").with("operator.listen", "127.0.0.1:0");
        Self::start_at(free, settings).await
    }

    /// Starts one whose log goes to a file.
    #[cfg(feature = "client")]
    pub async fn start_logging(settings: Settings, log: &std::path::Path) -> Self {
        let free = Settings::default().with("server.listen", "127.0.0.1:0").with("operator.listen", "127.0.0.1:0");
        let file = std::fs::File::create(log).unwrap();
        Self::spawn(free, settings, file.into()).await
    }

    async fn start_at(listen: Settings, settings: Settings) -> Self {
        let silent = std::env::var_os("SEALCAST_TEST_LOG").is_none();
        let log = if silent { Stdio::null() } else { Stdio::inherit() };
        Self::spawn(listen, settings, log).await
    }

    async fn spawn(listen: Settings, settings: Settings, log: Stdio) -> Self {
        let mut command = Command::new(executable());
        command.arg("serve").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let all = listen.0.iter().chain(&settings.0);
        command.envs(all.map(|(key, value)| (key, value)));
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let lines = tokio::task::spawn_blocking(move || {
            let mut lines = BufReader::new(stdout).lines();
            (lines.next(), lines.next())
        });
        let (public, operator) = within("the broker's two lines", lines).await.unwrap();
        let address = |line: Option<std::io::Result<String>>, prefix: &str| {
            line.expect("the broker ended").unwrap().strip_prefix(prefix).expect("another line").to_owned()
        };
        Self { child, settings, public: address(public, "listening on "), operator: address(operator, "operator on ") }
    }

    /// `host:port` of the public listener.
    pub fn address(&self) -> &str {
        self.public.strip_prefix("http://").unwrap()
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`, and the same broker again on the same ports.
    pub async fn kill_and_restart(&mut self) {
        self.kill();
        self.restart().await;
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The same broker again, on the same ports.
    pub async fn restart(&mut self) {
        let listen = Settings::default()
            .with("server.listen", self.address())
            .with("operator.listen", self.operator.strip_prefix("http://").unwrap());
        *self = Self::start_at(listen, self.settings.clone()).await;
    }

    /// The same broker again, on the same ports and another database.
    #[cfg(feature = "client")]
    pub async fn restart_on(&mut self, database: &Database) {
        self.settings = self.settings.clone().with("database.url", database.url());
        self.restart().await;
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status().unwrap();
        assert!(status.success());
    }

    /// Waits for the end of the process; gives its exit code.
    pub async fn exit_code(&mut self) -> Option<i32> {
        let mut code = None;
        super::eventually("the broker's end", async || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        })
        .await;
        code.unwrap().code()
    }

    /// Status and body of a GET on the operator's listener.
    pub async fn operator_get(&self, path: &str) -> (u16, String) {
        http(self.operator.strip_prefix("http://").unwrap(), "GET", path, "").await
    }

    /// Arms a place at which the broker breaks: see `gateway::fail_points`.
    #[cfg(feature = "fail-points")]
    pub async fn break_at(&self, place: &str, actions: &str) {
        let operator = self.operator.strip_prefix("http://").unwrap();
        let (status, body) = http(operator, "PUT", &format!("/fail-points/{place}"), actions).await;
        assert_eq!(status, 204, "{place}: {body}");
    }

    /// Status and body of a request to the public listener.
    pub async fn request(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        http(self.address(), method, path, body).await
    }

    /// The value of a metric, summed over its labels that contain `label`.
    pub async fn metric(&self, name: &str, label: &str) -> f64 {
        let (_, text) = self.operator_get("/metrics").await;
        text.lines()
            .filter(|line| line.starts_with(name) && line.contains(label))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Resident memory in MiB.
    pub fn rss_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program under test: the one that was built with these tests, unless `SEALCAST_TEST_BROKER` names a copy
/// that another user may run.
pub fn executable() -> std::ffi::OsString {
    std::env::var_os("SEALCAST_TEST_BROKER").unwrap_or_else(|| env!("CARGO_BIN_EXE_sealcast").into())
}

/// One HTTP/1.1 exchange, by hand.
async fn http(address: &str, method: &str, path: &str, body: &str) -> (u16, String) {
    let (address, method, path, body) = (address.to_owned(), method.to_owned(), path.to_owned(), body.to_owned());
    let deadline = super::deadline();
    let exchange = tokio::task::spawn_blocking(move || {
        use std::io::Write;
        let mut stream = std::net::TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(deadline)).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        // A server that refuses a body may answer and close before it has read it all.
        let _ = stream.write_all(head.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let text = String::from_utf8_lossy(&answer).into_owned();
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
        (status, body)
    });
    within("an HTTP answer", exchange).await.unwrap()
}
