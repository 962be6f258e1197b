#!/bin/bash
# First start of the deduplicator: package, configuration, units. It reads its passwords by itself. Each step can be repeated;
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
apt-get install -y --no-install-recommends awscli curl jq ca-certificates postgresql-client \
    prometheus-node-exporter
# It tells what the verification found.
echo 'ARGS="--collector.textfile.directory=/run/kalshi-verify"' >/etc/default/prometheus-node-exporter
systemctl restart prometheus-node-exporter

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

printf 'PRODUCTION_HOST=%s\nAWS_REGION=%s\n' "${production_host}" "${region}" >/etc/kalshi/deduplicator.env
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
      password_secret: aws:${secrets}/dedup-reader-db-password
      sslmode: require
END
    done
    cat <<'END'
production:
  host: $${PRODUCTION_HOST}
  database: kalshi_prod
  user: deduplicator
  password_secret: aws:${secrets}/deduplicator-db-password
  sslmode: verify-full
  sslrootcert: /etc/kalshi/rds-ca-bundle.pem
api:
  rest_url: https://external-api.kalshi.com/trade-api/v2
# Both read, and can do nothing else.
archive:
  url: ${archive}
  region: ${region}
  database: { user: exporter, password_secret: "aws:${secrets}/exporter-db-password" }
verify: { user: exporter, password_secret: "aws:${secrets}/exporter-db-password" }
rotation:
  - { role: deduplicator }
  - { role: dedup_reader }
  - { role: exporter, secret: "aws:${secrets}/exporter-db-password" }
server: { health: "0.0.0.0:8080", metrics: "0.0.0.0:9090" }
END
} >/etc/kalshi/deduplicator.yaml
chmod 0644 /etc/kalshi/deduplicator.yaml

# Units of a machine that reads its passwords by itself.
for unit in deduplicator.service kalshi-verify.service kalshi-rotate.service; do
    install -d "/etc/systemd/system/$unit.d"
    printf '[Unit]\nConditionPathExists=\n[Service]\nLoadCredential=\n' >"/etc/systemd/system/$unit.d/aws.conf"
done
for unit in kalshi-verify.timer kalshi-rotate.timer; do
    install -d "/etc/systemd/system/$unit.d"
    printf '[Unit]\nConditionPathExists=\n' >"/etc/systemd/system/$unit.d/aws.conf"
done
systemctl daemon-reload

# It waits for production, which docs/runbook.md makes in its second phase.
systemctl enable --now deduplicator kalshi-verify.timer kalshi-rotate.timer
