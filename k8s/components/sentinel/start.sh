# Starts one of three Redis, or the Sentinel beside it: start.sh redis|sentinel
#
# The Sentinels keep on their volumes who the master is. A Redis asks them, and starts as its replica. In a new installation nobody knows:
# then the master is the first pod.
set -eu
umask 077
what=$1
shift

host() {
    echo "redis-sentinel-$1.redis-sentinel"
}
nodes="$(host 0) $(host 1) $(host 2)"
self=$(host "${POD_NAME##*-}")

# For redis.conf and sentinel.conf.
quote() {
    printf '"%s"' "$(printf %s "$1" | sed 's/[\\"]/\\&/g')"
}

if [ -n "${REDIS_PASSWORD:-}" ]; then
    password=$(quote "$REDIS_PASSWORD")
    export REDISCLI_AUTH="$REDIS_PASSWORD"
fi

# tls PORT: the settings that serve TLS on this port, and use it among each other.
tls() {
    if [ -n "${REDIS_TLS:-}" ]; then
        printf '%s\n' 'port 0' "tls-port $1" 'tls-cert-file /tls/tls.crt' 'tls-key-file /tls/tls.key' 'tls-ca-cert-file /tls/ca.crt' \
            'tls-auth-clients no' 'tls-replication yes'
    else
        echo "port $1"
    fi
}

# ask NODE PORT COMMAND…: nothing when it does not answer.
ask() {
    node=$1 port=$2
    shift 2
    timeout 2 redis-cli ${REDIS_TLS:+--tls --cacert /tls/ca.crt} -h "$node" -p "$port" "$@" 2>/dev/null || true
}

# The master that most Sentinels name, if any answers.
named() {
    for node in $nodes; do
        ask "$node" 26379 SENTINEL GET-MASTER-ADDR-BY-NAME line-stream | head -n 1
    done | grep -xF "$(printf '%s\n' $nodes)" | sort | uniq -c | sort -rn | awk 'NR == 1 { print $2 }'
}

# The same; the first pod when no Sentinel answers for so long that there is none.
master() {
    tries=0
    while [ "$tries" -lt "${NEW_AFTER:-10}" ]; do
        found=$(named)
        if [ -n "$found" ]; then
            echo "$found"
            return
        fi
        tries=$((tries + 1))
        sleep 1
    done
    host 0
}

# Whether another Redis has keys.
others_have_data() {
    for node in $nodes; do
        if [ "$node" != "$self" ] && ask "$node" 6379 DBSIZE | grep -q '^[1-9]'; then
            return 0
        fi
    done
    return 1
}

case $what in
redis)
    {
        tls 6379
        if [ -n "${password:-}" ]; then
            printf 'requirepass %s\nmasterauth %s\n' "$password" "$password"
        fi
    } >/run/redis/own.conf
    # A failover writes to the file.
    cp /etc/redis/redis.conf /run/redis/redis.conf
    of=$(master)
    # It was the master and has lost its volume: its replicas would copy the emptiness. It waits until one of them is the master.
    tries=0
    while [ "$of" = "$self" ] && [ ! -e /data/appendonlydir ] && [ "$tries" -lt 60 ] && others_have_data; do
        tries=$((tries + 1))
        sleep 1
        of=$(master)
    done
    if [ "$of" != "$self" ]; then
        set -- --replicaof "$of" 6379 "$@"
    fi
    exec redis-server /run/redis/redis.conf --replica-announce-ip "$self" "$@"
    ;;
sentinel)
    if [ ! -s /data/sentinel.conf ]; then
        of=$(master)
        cat >/data/sentinel.new <<EOF
dir /data
protected-mode no
sentinel resolve-hostnames yes
sentinel announce-hostnames yes
sentinel announce-ip $self
sentinel monitor line-stream $of 6379 2
sentinel down-after-milliseconds line-stream 5000
sentinel failover-timeout line-stream 30000
EOF
        mv /data/sentinel.new /data/sentinel.conf
    fi
    # Sentinel keeps what it learns in the file. Password and TLS may be others than before.
    {
        grep -Ev '^(port|tls-|requirepass|user default|sentinel (auth-pass|sentinel-pass)) ?' /data/sentinel.conf
        tls 26379
        if [ -n "${password:-}" ]; then
            printf 'requirepass %s\nsentinel sentinel-pass %s\nsentinel auth-pass line-stream %s\n' "$password" "$password" "$password"
        fi
    } >/data/sentinel.new
    mv /data/sentinel.new /data/sentinel.conf
    exec redis-server /data/sentinel.conf --sentinel "$@"
    ;;
esac
