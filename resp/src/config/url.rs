//! Parsing of connection URLs. Errors never contain a password, even if it was not encoded.

use std::path::PathBuf;

use super::{Config, Endpoint};
use crate::ConfigError;

/// Redis' port.
const PORT: u16 = 6379;
/// How many digits a port has at most.
const MAX_PORT: usize = 5;
/// The default port of Sentinels.
const SENTINEL_PORT: u16 = 26379;

pub(super) fn parse(url: &str) -> Result<Config, ConfigError> {
    let (scheme, rest) = url.trim().split_once("://").ok_or(ConfigError::MissingScheme)?;
    if rest.contains('#') {
        return Err(ConfigError::Fragment);
    }
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let scheme = scheme.to_ascii_lowercase();
    // Whether the scheme means TLS, and the kind of endpoint.
    let (tls, kind) = match scheme.as_str() {
        "redis" | "valkey" => (false, "redis"),
        "rediss" | "valkeys" => (true, "redis"),
        "redis-sentinel" => (false, "sentinel"),
        "rediss-sentinel" => (true, "sentinel"),
        "redis-cluster" => (false, "cluster"),
        "rediss-cluster" => (true, "cluster"),
        other => (false, other),
    };
    let config = match kind {
        _ if tls && cfg!(not(feature = "tls")) => return Err(ConfigError::NoTls),
        "redis" | "sentinel" | "cluster" => {
            let path = rest.split_once('/').map_or("", |(_, path)| path);
            if path.contains('@') || query.contains('@') {
                // An unencoded `@` belongs to a password, part of which would be parsed as
                // something that may be shown.
                return Err(ConfigError::InvalidHost);
            }
            match kind {
                "redis" => server(rest, tls)?,
                "sentinel" => sentinels(rest, tls)?,
                _ => cluster(rest, tls)?,
            }
        }
        "unix" | "redis+unix" => socket(rest)?,
        // A scheme may be a password pasted in the wrong place, so only show what looks like a
        // scheme.
        _ if scheme.len() <= 16 && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-".contains(&byte)) => {
            return Err(ConfigError::UnknownScheme(scheme));
        }
        _ => return Err(ConfigError::MissingScheme),
    };
    parameters(config, query)
}

/// `[[user]:password@]host[:port][/database]`
fn server(rest: &str, tls: bool) -> Result<Config, ConfigError> {
    let (credentials, address, path) = cut(rest);
    let (host, port) = host_and_port(address, PORT)?;
    select(authenticate(Config::new(Endpoint::server(host, port, tls)), credentials)?, path)
}

/// `[[user]:password@]host[:port],host[:port],…/master[/database]`
fn sentinels(rest: &str, tls: bool) -> Result<Config, ConfigError> {
    let (credentials, addresses, path) = cut(rest);
    let sentinels = servers(addresses, SENTINEL_PORT, tls)?;
    let (master, path) = path.split_once('/').unwrap_or((path, ""));
    if master.is_empty() {
        return Err(ConfigError::MissingMaster);
    }
    let endpoint = Endpoint::Sentinel { sentinels, master: decode(master)?, tls };
    select(authenticate(Config::new(endpoint), credentials)?, path)
}

/// `[[user]:password@]host[:port],host[:port],…[/database]`
fn cluster(rest: &str, tls: bool) -> Result<Config, ConfigError> {
    let (credentials, addresses, path) = cut(rest);
    let endpoint = Endpoint::Cluster { seeds: servers(addresses, PORT, tls)?, tls };
    select(authenticate(Config::new(endpoint), credentials)?, path)
}

/// `host[:port],host[:port],…`
fn servers(addresses: &str, port: u16, tls: bool) -> Result<Vec<Endpoint>, ConfigError> {
    let one = |address| host_and_port(address, port).map(|(host, port)| Endpoint::server(host, port, tls));
    addresses.split(',').map(one).collect()
}

/// `database`, or nothing
fn select(config: Config, path: &str) -> Result<Config, ConfigError> {
    let path = path.trim_end_matches('/');
    if path.is_empty() { Ok(config) } else { Ok(config.database(database(path)?)) }
}

/// Credentials, addresses and path.
fn cut(rest: &str) -> (Option<&str>, &str, &str) {
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    match authority.rsplit_once('@') {
        Some((credentials, addresses)) => (Some(credentials), addresses, path),
        None => (None, authority, path),
    }
}

/// `host[:port]`
fn host_and_port(address: &str, default: u16) -> Result<(String, u16), ConfigError> {
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or(ConfigError::InvalidHost)?;
            match port.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if port.is_empty() => (host, None),
                None => return Err(ConfigError::InvalidHost),
            }
        }
        None => match address.split_once(':') {
            // Two colons: an IPv6 address without brackets, or a password that is not encoded.
            Some((_, port)) if port.contains(':') => return Err(ConfigError::InvalidHost),
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        },
    };
    if host.is_empty() {
        return Err(ConfigError::MissingHost);
    }
    if !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:%".contains(&byte) || !byte.is_ascii()) {
        return Err(ConfigError::InvalidHost);
    }
    let port = match port {
        None | Some("") => default,
        Some(text) => match text.parse() {
            Ok(port) if port != 0 => port,
            // The text may be a password without `@host`, or the rest of an unencoded one.
            _ if text.len() <= MAX_PORT && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                return Err(ConfigError::InvalidPort(text.to_owned()));
            }
            _ => return Err(ConfigError::InvalidPort("…".to_owned())),
        },
    };
    // A zone, as in `[fe80::1%25eth0]`, starts with an encoded percent sign in URLs.
    Ok((host.replace("%25", "%"), port))
}

/// `[user]:password` or `user`
fn authenticate(mut config: Config, credentials: Option<&str>) -> Result<Config, ConfigError> {
    let Some(credentials) = credentials else { return Ok(config) };
    let (user, password) = match credentials.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (credentials, None),
    };
    if !user.is_empty() {
        config = config.user(decode(user)?);
    }
    match password {
        Some(password) => Ok(config.password(decode(password)?)),
        None => Ok(config),
    }
}

/// `/path`
fn socket(path: &str) -> Result<Config, ConfigError> {
    if !path.starts_with('/') {
        return Err(ConfigError::MissingPath);
    }
    Ok(Config::new(Endpoint::Unix { path: PathBuf::from(decode(path)?) }))
}

fn parameters(mut config: Config, query: &str) -> Result<Config, ConfigError> {
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        config = match name {
            "db" => config.database(database(value)?),
            "user" => config.user(decode(value)?),
            "pass" | "password" => config.password(decode(value)?),
            "protocol" => match value {
                "2" => config.resp2(true),
                "3" => config.resp2(false),
                _ if value.len() < 3 => return Err(ConfigError::InvalidProtocol(value.to_owned())),
                _ => return Err(ConfigError::InvalidProtocol("…".to_owned())),
            },
            "client_name" => config.client_name(decode(value)?),
            "sentinel_user" if matches!(config.endpoint, Endpoint::Sentinel { .. }) => {
                config.sentinel_user(decode(value)?)
            }
            "sentinel_password" if matches!(config.endpoint, Endpoint::Sentinel { .. }) => {
                config.sentinel_password(decode(value)?)
            }
            #[cfg(feature = "tls")]
            "ca" | "cert" | "key" | "server_name" if config.endpoint.is_tls() => {
                let value = decode(value)?;
                let tls = std::mem::take(&mut config.tls);
                config.tls(match name {
                    "ca" => tls.ca(value),
                    "cert" => tls.certificate(value),
                    "key" => tls.key(value),
                    _ => tls.server_name(value),
                })
            }
            // The name may be the rest of an unencoded password.
            _ if config.password.is_some() || config.sentinel_password.is_some() => {
                return Err(ConfigError::UnknownParameter("…".to_owned()));
            }
            _ => return Err(ConfigError::UnknownParameter(name.to_owned())),
        };
    }
    Ok(config)
}

fn database(text: &str) -> Result<u32, ConfigError> {
    text.parse().map_err(|_| ConfigError::InvalidDatabase(text.to_owned()))
}

/// Decodes percent-encoding.
fn decode(text: &str) -> Result<String, ConfigError> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut hex = || bytes.next().and_then(|digit| char::from(digit).to_digit(16));
        match (hex(), hex()) {
            (Some(high), Some(low)) => decoded.push(crate::redact::hex_byte(high, low)),
            _ => return Err(ConfigError::InvalidEncoding),
        }
    }
    String::from_utf8(decoded).map_err(|_| ConfigError::InvalidEncoding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_urls() {
        let table = [
            ("redis://localhost", "redis://localhost:6379"),
            ("redis://localhost:7000/", "redis://localhost:7000"),
            ("REDIS://127.0.0.1/5", "redis://127.0.0.1:6379/5"),
            ("redis://[::1]:7000/1", "redis://[::1]:7000/1"),
            ("redis://[fe80::1]", "redis://[fe80::1]:6379"),
            ("redis://[fe80::1%25eth0]", "redis://[fe80::1%eth0]:6379"),
            ("redis://:secret@h", "redis://:***@h:6379"),
            ("redis://user:secret@h", "redis://user:***@h:6379"),
            ("redis://user@h", "redis://user@h:6379"),
            ("redis://h?db=3", "redis://h:6379/3"),
            ("valkey://h", "redis://h:6379"),
            ("redis://h?protocol=2&client_name=a%2Fb", "redis://h:6379"),
            ("redis-sentinel://a,b:7,[::1]/my%2Fmaster", "redis-sentinel://a:26379,b:7,[::1]:26379/my/master"),
            ("redis-sentinel://u:pw@a/m/3?sentinel_password=x", "redis-sentinel://u:***@a:26379/m/3"),
            ("redis-cluster://:pw@a,b:7,[::1]", "redis-cluster://:***@a:6379,b:7,[::1]:6379"),
            ("unix:///run/redis.sock?db=2", "unix:///run/redis.sock?db=2"),
            ("redis+unix:///run/my%20redis.sock", "unix:///run/my redis.sock"),
        ];
        for (url, shown) in table {
            assert_eq!(parse(url).map(|config| config.to_string()), Ok(shown.to_owned()), "{url}");
        }
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn no_tls_without_the_feature() {
        for url in ["rediss://h", "valkeys://h", "rediss-sentinel://h/m", "rediss-cluster://h"] {
            assert_eq!(parse(url).map(|config| config.to_string()), Err(ConfigError::NoTls), "{url}");
        }
    }

    #[cfg(feature = "tls")]
    #[test]
    fn tls() {
        let config = parse("rediss://:pw@h/2?ca=/ca.pem&cert=/me.pem&key=/me.key&server_name=redis.example").unwrap();
        assert_eq!(config.to_string(), "rediss://:***@h:6379/2");
        let expected = super::super::TlsConfig::default()
            .ca("/ca.pem")
            .certificate("/me.pem")
            .key("/me.key")
            .server_name("redis.example");
        assert_eq!(config.tls, expected);
        let config = parse("rediss-sentinel://a,b:7/m?ca=/ca.pem").unwrap();
        assert_eq!(config.to_string(), "rediss-sentinel://a:26379,b:7/m");
        assert_eq!(config.tls, super::super::TlsConfig::default().ca("/ca.pem"));
        assert_eq!(parse("rediss-cluster://h?ca=/x").unwrap().to_string(), "rediss-cluster://h:6379");
        assert_eq!(parse("valkeys://h").unwrap().to_string(), "rediss://h:6379");
        // TLS parameters without TLS are an error.
        assert_eq!(parse("redis://h?ca=/x").unwrap_err(), ConfigError::UnknownParameter("ca".to_owned()));
    }

    #[test]
    fn credentials_are_decoded() {
        let config = parse("redis://us%40er:p%3Aa%2Fss%25w@rd@host").unwrap();
        assert_eq!(config.user.as_deref(), Some("us@er"));
        assert_eq!(config.password.unwrap().reveal(), "p:a/ss%w@rd");
    }

    #[test]
    fn sentinels_have_their_own_credentials() {
        let config =
            parse("redis-sentinel://me:pw@a/m?sentinel_user=s&sentinel_password=p%40ss&protocol=2&client_name=n");
        let config = config.unwrap();
        assert_eq!((config.user.as_deref(), config.password.unwrap().reveal()), (Some("me"), "pw"));
        assert_eq!((config.sentinel_user.as_deref(), config.sentinel_password.unwrap().reveal()), (Some("s"), "p@ss"));
        assert_eq!((config.resp2, config.client_name.as_deref()), (true, Some("n")));
        assert_eq!(config.endpoint, Endpoint::sentinel([("a", 26379)], "m"));
    }

    #[test]
    fn invalid_urls() {
        use ConfigError::*;
        let table = [
            ("localhost:6379", MissingScheme),
            ("", MissingScheme),
            ("http://h", UnknownScheme("http".to_owned())),
            ("redis-socket:///s", UnknownScheme("redis-socket".to_owned())),
            ("redis://", MissingHost),
            ("redis://:6379", MissingHost),
            ("redis://u:p@", MissingHost),
            ("redis://h:0", InvalidPort("0".to_owned())),
            ("redis://h:65536", InvalidPort("65536".to_owned())),
            ("redis://h:se/cret@x", InvalidHost),
            ("redis://h:secret", InvalidPort("…".to_owned())),
            ("redis://default:73910462", InvalidPort("…".to_owned())),
            ("redis://h/x", InvalidDatabase("x".to_owned())),
            ("redis://h/-1", InvalidDatabase("-1".to_owned())),
            ("redis://::1", InvalidHost),
            ("redis://[::1", InvalidHost),
            ("redis://a b", InvalidHost),
            ("redis://u:%zz@h", InvalidEncoding),
            ("redis://u:%ff@h", InvalidEncoding),
            ("redis://u:a#b@h", Fragment),
            ("redis://h?proto=3", UnknownParameter("proto".to_owned())),
            ("unix:///s?pass=s3&cret", UnknownParameter("…".to_owned())),
            ("redis://h?sentinel_user=x", UnknownParameter("sentinel_user".to_owned())),
            ("redis://h?protocol=4", InvalidProtocol("4".to_owned())),
            ("redis://a,b", InvalidHost),
            ("redis-sentinel://a,b", MissingMaster),
            ("redis-sentinel://a,b//1", MissingMaster),
            ("redis-sentinel://a,,b/m", MissingHost),
            ("redis-sentinel://a,b:0/m", InvalidPort("0".to_owned())),
            ("redis-cluster://", MissingHost),
            ("redis-cluster://a,", MissingHost),
            ("redis-cluster://a/m", InvalidDatabase("m".to_owned())),
            ("redis-cluster://a?sentinel_user=x", UnknownParameter("sentinel_user".to_owned())),
            ("redis-sentinel://a/m/x", InvalidDatabase("x".to_owned())),
            ("unix://relative", MissingPath),
            ("unix://", MissingPath),
        ];
        for (url, error) in table {
            assert_eq!(parse(url).map(|config| config.to_string()), Err(error), "{url}");
        }
    }

    #[test]
    fn passwords_are_never_shown() {
        for url in [
            "redis://user:s3cret@host",
            "unix:///s?pass=s3cret",
            "redis://:s3cret@host:1/2",
            "redis-sentinel://:s3cret@a,b/m",
            "redis-sentinel://a,b/m?sentinel_password=s3cret",
        ] {
            let config = parse(url).unwrap();
            assert!(!format!("{config} {config:?} {config:#?}").contains("s3cret"), "{url}");
        }
        for url in [
            "redis://user:s3cret@host:x",
            "s3cret-!://x",
            "redis://h:s3cret",
            "redis://:s3cret/@h",
            "redis://u:1/s3cret@h",
            "redis://u?s3cret@h",
            "redis://u:1/s3cret?@h",
            "redis://u:1?db=s3cret&x@h",
            "redis://u:1/2?s3cret=@h",
            "redis-sentinel://a,b:s3cret/m",
            "redis-cluster://a,b:s3cret",
            "redis-cluster://u:1/s3cret@a,b",
            "redis-sentinel://u:1/s3cret@a,b/m",
            "redis-sentinel://a/m?sentinel_password=s3cret@x",
            "redis://h?protocol=s3cret",
        ] {
            let error = parse(url).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{url}: {error}");
        }
    }
}
