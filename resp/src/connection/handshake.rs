//! The handshake of a new connection: RESP version, authentication, database, client name.
//! [`Connection`] runs it once, before the first command of the user.

use crate::config::Config;
use crate::{Connection, Error, ErrorKind, Frame, cmd};

/// The RESP version that client and server have negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RespVersion {
    /// RESP2, which every server supports.
    Resp2,
    /// RESP3, from Redis 6.
    Resp3,
}

pub(super) async fn run(connection: &mut Connection, config: &Config) -> Result<(), Error> {
    let mut refused = None;
    connection.protocol = match config.resp2 {
        true => RespVersion::Resp2,
        false => match hello(connection, config).await? {
            Ok(protocol) => protocol,
            Err(error) => {
                refused = Some(error);
                RespVersion::Resp2
            }
        },
    };
    let done = agreed(connection, config).await;
    match (done, refused) {
        // A server that closes the connection gave the reason before.
        (Err(error), Some(refused)) if error.kind() == ErrorKind::Io => Err(refused),
        (done, _) => done,
    }
}

/// Completes the handshake once the version is negotiated.
async fn agreed(connection: &mut Connection, config: &Config) -> Result<(), Error> {
    if connection.protocol == RespVersion::Resp2 {
        authenticate(connection, config).await?;
    }
    // All remaining commands in one round trip.
    let select = (config.database != 0).then(|| cmd::<()>("SELECT").arg(config.database));
    let name = match (&config.client_name, connection.protocol) {
        (Some(name), RespVersion::Resp2) => Some(cmd::<()>("CLIENT SETNAME").arg(name)),
        _ => None,
    };
    let info = [
        cmd::<()>("CLIENT SETINFO LIB-NAME").arg(env!("CARGO_PKG_NAME")),
        cmd::<()>("CLIENT SETINFO LIB-VER").arg(env!("CARGO_PKG_VERSION")),
    ];
    for command in select.iter().chain(&name).chain(&info) {
        connection.queue(command);
    }
    if let Some(select) = &select {
        connection.receive_reply(select).await?;
    }
    if let Some(name) = &name {
        connection.receive_reply(name).await?;
    }
    for _ in &info {
        // Servers before 7.2 do not support it.
        connection.receive().await?;
    }
    Ok(())
}

/// Proposes RESP3, with password and client name in the same command. The inner `Err` is the
/// server's refusal, after which the connection falls back to RESP2.
async fn hello(connection: &mut Connection, config: &Config) -> Result<Result<RespVersion, Error>, Error> {
    let mut hello = cmd::<Frame>("HELLO").arg(3);
    if let Some((user, password)) = credentials(config) {
        hello = hello.arg("AUTH").arg(user.unwrap_or("default")).arg(password);
    }
    if let Some(name) = &config.client_name {
        hello = hello.arg("SETNAME").arg(name);
    }
    match connection.send(hello).await {
        Ok(reply) => {
            let number = |name: &[u8]| reply.value().get(name).and_then(crate::Value::as_int);
            connection.client_id = number(b"id");
            Ok(Ok(if number(b"proto") == Some(3) { RespVersion::Resp3 } else { RespVersion::Resp2 }))
        }
        Err(error) if !connection.is_closed() && may_be_about_hello(&error, config) => Ok(Err(error)),
        Err(error) => Err(error),
    }
}

/// Returns whether `AUTH` and RESP2 may work where `HELLO` fails. Servers and proxies refuse
/// `HELLO` with many different errors.
fn may_be_about_hello(error: &Error, config: &Config) -> bool {
    match error.kind() {
        // Some proxies want AUTH first. Without credentials it is a missing password.
        ErrorKind::NoAuth => credentials(config).is_some(),
        // HELLO requires a user name, AUTH does not.
        ErrorKind::WrongPass => config.user.is_none(),
        kind => error.is_server() && !kind.is_transient(),
    }
}

async fn authenticate(connection: &mut Connection, config: &Config) -> Result<(), Error> {
    let Some((user, password)) = credentials(config) else { return Ok(()) };
    let mut auth = cmd::<()>("AUTH");
    if let Some(user) = user {
        auth = auth.arg(user);
    }
    connection.send(auth.arg(password)).await?;
    Ok(())
}

/// Returns user and password, if either is configured. A user without a password accepts any.
fn credentials(config: &Config) -> Option<(Option<&str>, &str)> {
    match (config.user.as_deref(), config.password.as_ref()) {
        (None, None) => None,
        (user, password) => Some((user, password.map_or("", |password| password.reveal()))),
    }
}
