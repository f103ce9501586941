//! Connects over TLS with a private authority: `cargo run --features tls --example tls --
//! rediss://localhost:6380 ca.pem [client.pem client.key]`
use resp::{Config, Connection, Frame, TlsConfig, cmd};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let url = args.first().map_or("rediss://localhost:6380", |url| url);
    let mut tls = TlsConfig::default();
    if let Some(ca) = args.get(1) {
        tls = tls.ca(ca);
    }
    if let (Some(certificate), Some(key)) = (args.get(2), args.get(3)) {
        tls = tls.certificate(certificate).key(key);
    }
    let mut connection = Connection::connect(&Config::from_url(url)?.tls(tls)).await?;
    let pong = connection.send(cmd::<Frame>("PING")).await?;
    println!("{:?} over {:?}", pong, connection.protocol());
    Ok(())
}
