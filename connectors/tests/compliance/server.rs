//! A Postgres server for tests: the one `TIDEGATE_POSTGRES` names (a URL of a user who may create
//! schemas), or one of its own where Postgres is installed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

/// A server, and where it is.
pub struct Server {
    pub url: String,
    pub own: Option<Own>,
}

/// One that was started here, and ends with the test.
pub struct Own {
    bin: PathBuf,
    folder: TempDir,
    port: u16,
}

impl Own {
    fn find() -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path().join("bin"));
        std::env::split_paths(&path).chain(installed).find(|bin| bin.join("initdb").exists() && bin.join("postgres").exists())
    }

    /// As nobody, where the tests run as root: Postgres refuses that.
    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let program = self.bin.join(program);
        let mut command = match fs::metadata("/proc/self").unwrap().uid() {
            0 => {
                let mut command = Command::new("runuser");
                command.args(["-u", "nobody", "--"]).arg(program);
                command
            }
            _ => Command::new(program),
        };
        command.args(arguments).current_dir(self.folder.path()).output().unwrap()
    }

    fn start(bin: PathBuf) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let own = Self { bin, folder: TempDir::new().unwrap(), port };
        if fs::metadata("/proc/self").unwrap().uid() == 0 {
            assert!(Command::new("chown").arg("nobody").arg(own.folder.path()).status().unwrap().success());
        }
        let made = own.run("initdb", &["-D", "data", "-U", "postgres", "--auth=trust", "-E", "UTF8", "--locale=C", "--no-sync"]);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        own.up();
        own
    }

    pub fn up(&self) {
        let options = format!("-p {} -k {} -c listen_addresses=127.0.0.1", self.port, self.folder.path().display());
        let started = self.run("pg_ctl", &["-D", "data", "-o", &options, "-l", "log", "-w", "start"]);
        assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    }

    /// As a crash would.
    pub fn down(&self) {
        self.run("pg_ctl", &["-D", "data", "-m", "immediate", "stop"]);
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.down();
    }
}

impl Server {
    pub fn find() -> Option<Self> {
        if let Ok(url) = std::env::var("TIDEGATE_POSTGRES") {
            return Some(Self { url, own: None });
        }
        let own = Own::start(Own::find()?);
        Some(Self { url: format!("postgres://postgres@127.0.0.1:{}/postgres", own.port), own: Some(own) })
    }

    pub async fn client(&self) -> Client {
        let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }
}
