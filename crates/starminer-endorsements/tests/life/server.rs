//! A server on loopback that answers by a table which the test can change, well or badly.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};

#[derive(Clone, Debug)]
pub enum Reply {
    /// Status, headers, body.
    Full(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// Nothing, ever.
    Silence,
    /// The head, and then nothing.
    Half,
    /// A body that goes on for as long as somebody reads.
    Endless,
    /// A body that is said to be so long.
    Declared(u64),
    /// No HTTP.
    Garbage,
    /// The end of the connection.
    Close,
    /// More head than anybody should read.
    LongHead,
}

impl Reply {
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::Full(200, Vec::new(), body.into())
    }

    pub fn status(status: u16) -> Self {
        Self::Full(status, Vec::new(), b"why".to_vec())
    }
}

#[derive(Debug, Default)]
pub struct Table {
    /// By path and query.
    pub replies: Mutex<BTreeMap<String, Reply>>,
    /// Paths that were asked for, and bodies that came with it.
    pub asked: Mutex<Vec<(String, Vec<u8>)>>,
    under_way: AtomicUsize,
    pub most_at_once: AtomicUsize,
}

impl Table {
    pub fn set(&self, path: &str, reply: Reply) {
        self.replies.lock().unwrap().insert(path.to_owned(), reply);
    }

    /// Everything is answered so.
    pub fn all(&self, reply: &Reply) {
        for one in self.replies.lock().unwrap().values_mut() {
            *one = reply.clone();
        }
    }

    /// How often it was asked since the last time.
    pub fn count(&self) -> usize {
        std::mem::take(&mut *self.asked.lock().unwrap()).len()
    }
}

pub struct Server {
    pub address: SocketAddr,
    pub table: Arc<Table>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub async fn start() -> Self {
        Self::start_with(None).await
    }

    pub async fn start_tls(acceptor: tokio_rustls::TlsAcceptor) -> Self {
        Self::start_with(Some(acceptor)).await
    }

    async fn start_with(acceptor: Option<tokio_rustls::TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let table = Arc::new(Table::default());
        let shared = table.clone();
        let task = tokio::spawn(async move {
            // Ends its connections with itself.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (table, acceptor) = (shared.clone(), acceptor.clone());
                connections.spawn(async move {
                    match acceptor {
                        None => answer(stream, &table).await,
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                answer(stream, &table).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, table, task }
    }

    pub fn base(&self) -> String {
        format!("http://{}", self.address)
    }
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, table: &Table) {
    let now = table.under_way.fetch_add(1, Ordering::SeqCst) + 1;
    table.most_at_once.fetch_max(now, Ordering::SeqCst);
    // Whatever becomes of it: whoever asked may be gone.
    let _ = serve(&mut stream, table).await;
    table.under_way.fetch_sub(1, Ordering::SeqCst);
}

async fn serve(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), table: &Table) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let text = String::from_utf8(head).unwrap();
    let path = text.split(' ').nth(1).unwrap().to_owned();
    let length = text.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await?;
    table.asked.lock().unwrap().push((path.clone(), body));
    let reply = table.replies.lock().unwrap().get(&path).cloned().unwrap_or_else(|| Reply::status(404));
    match reply {
        Reply::Full(status, headers, body) => {
            let mut head = format!("HTTP/1.1 {status} Whatever\r\ncontent-length: {}\r\n", body.len());
            for (name, value) in headers {
                head += &format!("{name}: {value}\r\n");
            }
            stream.write_all(format!("{head}\r\n").as_bytes()).await?;
            stream.write_all(&body).await?;
        }
        Reply::Silence => drop(stream.read_u8().await),
        Reply::Half => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await?;
            drop(stream.read_u8().await);
        }
        Reply::Endless => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
            loop {
                stream.write_all(&[b'a'; 4096]).await?;
            }
        }
        Reply::Declared(length) => {
            stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").as_bytes()).await?;
            drop(stream.read_u8().await);
        }
        Reply::Garbage => stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01 not http\r\n\r\n").await?,
        Reply::Close => {}
        Reply::LongHead => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
            loop {
                stream
                    .write_all(b"x-more: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n")
                    .await?;
            }
        }
    }
    stream.flush().await?;
    stream.shutdown().await
}
