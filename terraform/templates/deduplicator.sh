#!/bin/bash
# First start of the deduplicator: package, secrets, configuration, unit. Each step can be repeated;
# /var/log/kalshi-setup.log says how far it came.
set -euo pipefail
exec >>/var/log/kalshi-setup.log 2>&1
set -x
export DEBIAN_FRONTEND=noninteractive AWS_DEFAULT_REGION="${region}"

# The security group lets nothing out but TLS.
for place in /etc/apt/sources.list /etc/apt/sources.list.d /etc/apt/mirrors; do
    [ ! -e "$place" ] || find "$place" -type f -exec sed -i 's#http://#https://#g' {} +
done
apt-get update
apt-get install -y --no-install-recommends awscli curl jq ca-certificates postgresql-client

# Shells by the Session Manager.
if ! systemctl is-active --quiet amazon-ssm-agent; then
    agent=$(mktemp --suffix=.deb)
    curl -fsS --retry 5 -o "$agent" \
        "https://s3.${region}.amazonaws.com/amazon-ssm-${region}/latest/debian_arm64/amazon-ssm-agent.deb"
    dpkg -i "$agent"
    systemctl enable --now amazon-ssm-agent
fi

package=$(mktemp --suffix=.deb)
aws s3 cp --no-progress "${package}" "$package"
chmod 0644 "$package"
apt-get install -y "$package"

# The authorities of RDS.
curl -fsS --retry 5 -o /etc/kalshi/rds-ca-bundle.pem \
    https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem
chmod 0644 /etc/kalshi/rds-ca-bundle.pem

# Copies the machine's secrets to where its unit loads them from; waits for those without a value.
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
secret deduplicator-db-password | tr -d '\n' >"$credentials/production-password.new"
secret dedup-reader-password | tr -d '\n' >"$credentials/dedup-reader-password.new"
for name in production-password dedup-reader-password; do
    mv "$credentials/$name.new" "$credentials/$name"
done
END
chmod 0755 /usr/local/sbin/kalshi-secrets
set +x
kalshi-secrets

printf 'PRODUCTION_HOST=%s\n' "${production_host}" >/etc/kalshi/deduplicator.env
{
    cat <<'END'
deduplicator_id: deduplicator-1
gatherers:
END
    for gatherer in ${gatherers}; do
        cat <<END
  - id: $gatherer
    database:
      host: $gatherer.internal
      database: kalshi_ts
      user: dedup_reader
      password_file: \$${CREDENTIALS_DIRECTORY}/dedup-reader-password
      sslmode: require
END
    done
    cat <<'END'
production:
  host: $${PRODUCTION_HOST}
  database: kalshi_prod
  user: deduplicator
  password_file: $${CREDENTIALS_DIRECTORY}/production-password
  sslmode: verify-full
  sslrootcert: /etc/kalshi/rds-ca-bundle.pem
api:
  rest_url: https://external-api.kalshi.com/trade-api/v2
server: { health: "0.0.0.0:8080", metrics: "0.0.0.0:9090" }
END
} >/etc/kalshi/deduplicator.yaml
chmod 0644 /etc/kalshi/deduplicator.yaml

# It waits for production, which docs/runbook.md makes in its second phase.
systemctl enable --now deduplicator
