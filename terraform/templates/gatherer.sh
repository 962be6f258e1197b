#!/bin/bash
# First start of ${gatherer}: disk, database, package, secrets, configuration, unit. Each step can be
# repeated; /var/log/kalshi-setup.log says how far it came.
set -euo pipefail
exec >>/var/log/kalshi-setup.log 2>&1
set -x
export DEBIAN_FRONTEND=noninteractive AWS_DEFAULT_REGION="${region}"

# The security group lets nothing out but TLS.
for place in /etc/apt/sources.list /etc/apt/sources.list.d /etc/apt/mirrors; do
    [ ! -e "$place" ] || find "$place" -type f -exec sed -i 's#http://#https://#g' {} +
done
apt-get update
apt-get install -y --no-install-recommends awscli curl jq ca-certificates

# Shells by the Session Manager.
if ! systemctl is-active --quiet amazon-ssm-agent; then
    agent=$(mktemp --suffix=.deb)
    curl -fsS --retry 5 -o "$agent" \
        "https://s3.${region}.amazonaws.com/amazon-ssm-${region}/latest/debian_arm64/amazon-ssm-agent.deb"
    dpkg -i "$agent"
    systemctl enable --now amazon-ssm-agent
fi

# The disk that outlives this machine: made only when it is empty.
device=/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_${volume}
until [ -e "$device" ]; do sleep 2; done
# The disk itself is asked (2: nothing is on it): udev names it before it knows what is on it, and mkfs does not ask.
found=0
blkid --probe "$device" || found=$?
if [ "$found" -eq 2 ]; then
    mkfs.ext4 -q -L kalshi "$device"
fi
mkdir -p /srv/kalshi
grep -q '^LABEL=kalshi ' /etc/fstab || echo 'LABEL=kalshi /srv/kalshi ext4 noatime 0 2' >>/etc/fstab
mountpoint -q /srv/kalshi || mount /srv/kalshi
for name in postgresql kalshi; do
    mkdir -p "/srv/kalshi/$name" "/var/lib/$name"
    grep -q " /var/lib/$name " /etc/fstab ||
        echo "/srv/kalshi/$name /var/lib/$name none bind,x-systemd.requires-mounts-for=/srv/kalshi 0 0" >>/etc/fstab
    mountpoint -q "/var/lib/$name" || mount "/var/lib/$name"
done

# A cluster that is on that disk already runs as whoever owns its files: that user may have had another number
# on another machine.
apt-get install -y --no-install-recommends postgresql-common
chown -R postgres:postgres /var/lib/postgresql
apt-get install -y --no-install-recommends postgresql
# The package makes a cluster where there is none. One of another machine lacks what that had in /etc.
version=$(find /var/lib/postgresql -mindepth 2 -maxdepth 2 -name main -printf '%P\n' | sort -n | tail -n 1)
version=$${version%/main}
conf=/etc/postgresql/$version/main
if [ ! -e "$conf/postgresql.conf" ]; then
    data=/var/lib/postgresql/$version/main
    cp "/usr/share/postgresql/$version/postgresql.conf.sample" "$data/postgresql.conf"
    touch "$data/pg_hba.conf" "$data/pg_ident.conf"
    chown postgres:postgres "$data"/*.conf
    pg_createcluster "$version" main
fi
cat >"$conf/conf.d/kalshi.conf" <<'END'
listen_addresses = '*'
ssl = on
ssl_cert_file = '/etc/ssl/certs/ssl-cert-snakeoil.pem'
ssl_key_file = '/etc/ssl/private/ssl-cert-snakeoil.key'
password_encryption = 'scram-sha-256'
# What was acknowledged must be there after a crash: readers may have it.
synchronous_commit = on
shared_buffers = '4GB'
max_wal_size = '8GB'
wal_compression = on
# A statement that fails may hold a password.
log_min_error_statement = panic
END
cat >"$conf/pg_hba.conf" <<'END'
# type   database   user          address                 method
local    all        postgres                              peer map=kalshi
hostssl  kalshi_ts  gatherer      127.0.0.1/32            scram-sha-256
hostssl  kalshi_ts  gatherer      ::1/128                 scram-sha-256
hostssl  kalshi_ts  dedup_reader  ${deduplicator_cidr}    scram-sha-256
END
# root becomes PostgreSQL's administrator for `kalshi migrate`.
cat >"$conf/pg_ident.conf" <<'END'
kalshi  postgres  postgres
kalshi  root      postgres
END
systemctl enable postgresql
systemctl restart postgresql
until pg_isready -q; do sleep 1; done

package=$(mktemp --suffix=.deb)
aws s3 cp --no-progress "${package}" "$package"
chmod 0644 "$package"
apt-get install -y "$package"
chown -R kalshi:kalshi /var/lib/kalshi

# Copies the exchange's key to where the unit loads it from; waits for one without a value. Passwords are read
# by the program itself, which follows them when they are rotated; the key is a copy, so that a gatherer that
# starts records whether or not the secret manager answers.
cat >/usr/local/sbin/kalshi-secrets <<'END'
#!/bin/bash
set -euo pipefail
umask 077
secret() {
    until aws --region "${region}" secretsmanager get-secret-value --secret-id "${secrets}/$1" \
        --query SecretString --output text 2>/dev/null; do
        sleep 15
    done
}
credentials=/etc/kalshi/credentials
install -d -m 0700 "$credentials"
key=$(secret "${key_secret}")
jq -er .private_key <<<"$key" >"$credentials/kalshi.pem.new"
printf 'KALSHI_KEY_ID=%s\nAWS_REGION=%s\n' "$(jq -er .key_id <<<"$key")" "${region}" >/etc/kalshi/gatherer.env
mv "$credentials/kalshi.pem.new" "$credentials/kalshi.pem"
END
chmod 0755 /usr/local/sbin/kalshi-secrets
set +x
kalshi-secrets

cat >/etc/kalshi/gatherer.yaml <<'END'
gatherer_id: ${gatherer}
api:
  rest_url: https://external-api.kalshi.com/trade-api/v2
  ws_url: wss://external-api-ws.kalshi.com/trade-api/ws/v2
  key_id: $${KALSHI_KEY_ID}
  private_key_file: $${CREDENTIALS_DIRECTORY}/kalshi.pem
database:
  host: localhost
  database: kalshi_ts
  user: gatherer
  password_secret: aws:${secrets}/${gatherer}-db-password
  sslmode: require
rotation: [{ role: gatherer }]
journal: { dir: /var/lib/kalshi/journal, max_age: 72h, max_bytes: 50GiB }
server: { health: "0.0.0.0:8080", metrics: "0.0.0.0:9090" }
END
chmod 0644 /etc/kalshi/gatherer.yaml

# Units of a machine that reads its passwords by itself.
drop_in() {
    install -d "/etc/systemd/system/$1.d"
    cat >"/etc/systemd/system/$1.d/aws.conf"
}
drop_in gatherer.service <<'END'
[Service]
LoadCredential=
LoadCredential=kalshi.pem:/etc/kalshi/credentials/kalshi.pem
END
# It gives itself another password, each month.
drop_in kalshi-rotate.service <<'END'
[Unit]
ConditionPathExists=
ConditionPathExists=/etc/kalshi/credentials/kalshi.pem
[Service]
ExecStart=
ExecStart=/opt/kalshi/kalshi rotate-password --all --config /etc/kalshi/gatherer.yaml
LoadCredential=
EnvironmentFile=
EnvironmentFile=/etc/kalshi/gatherer.env
END
drop_in kalshi-rotate.timer <<'END'
[Unit]
ConditionPathExists=
ConditionPathExists=/etc/kalshi/credentials/kalshi.pem
END
systemctl daemon-reload

# The first time it makes database, roles and tables, as PostgreSQL's administrator; later migrations are the
# service's own user's.
first=$(mktemp)
cat >"$first" <<'END'
gatherer_id: ${gatherer}
database: { host: localhost, database: kalshi_ts, user: gatherer, sslmode: require }
admin: { host: /var/run/postgresql, user: postgres, sslmode: disable }
END
kalshi migrate --config "$first"
rm "$first"

# psql sends a verifier, never the password. Without a terminal it reads its input.
set_password() {
    { cat; echo; } | sed p | setsid -w runuser -u postgres -- psql -qd kalshi_ts -c "\\password $1"
}
first_password() {
    until value=$(aws secretsmanager get-secret-value --secret-id "${secrets}/$2" \
        --query SecretString --output text 2>/dev/null); do
        sleep 15
    done
    printf '%s' "$value" | set_password "$1"
}
first_password gatherer ${gatherer}-db-password
first_password dedup_reader dedup-reader-db-password
unset value

systemctl enable --now gatherer kalshi-rotate.timer
until curl -fs localhost:8080/ready; do sleep 5; done
echo "${gatherer} records"
