# One key encrypts what is at rest: volumes, production, archive, secrets, logs.

resource "aws_kms_key" "main" {
  description             = local.name
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "TheAccountDecidesByIam"
        Effect    = "Allow"
        Principal = { AWS = "arn:aws:iam::${local.account}:root" }
        Action = [
          "kms:CancelKeyDeletion", "kms:CreateGrant", "kms:Decrypt", "kms:DescribeKey",
          "kms:EnableKeyRotation", "kms:Encrypt", "kms:GenerateDataKey",
          "kms:GenerateDataKeyWithoutPlaintext", "kms:GetKeyPolicy", "kms:GetKeyRotationStatus",
          "kms:ListGrants", "kms:ListResourceTags", "kms:PutKeyPolicy", "kms:ReEncryptFrom",
          "kms:ReEncryptTo", "kms:RevokeGrant", "kms:ScheduleKeyDeletion", "kms:TagResource",
          "kms:UntagResource", "kms:UpdateKeyDescription",
        ]
        # A key's policy stands for the key itself: its own ARN is not known here.
        Resource = "arn:aws:kms:${var.aws_region}:${local.account}:key/*"
      },
      {
        Sid       = "LogsAreEncrypted"
        Effect    = "Allow"
        Principal = { Service = "logs.${var.aws_region}.amazonaws.com" }
        Action = [
          "kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey", "kms:ReEncryptFrom",
          "kms:ReEncryptTo",
        ]
        Resource = "arn:aws:kms:${var.aws_region}:${local.account}:key/*"
        Condition = {
          ArnEquals = {
            "kms:EncryptionContext:aws:logs:arn" = "arn:aws:logs:${var.aws_region}:${local.account}:log-group:/${local.name}/flow"
          }
        }
      },
    ]
  })
}

resource "aws_kms_alias" "main" {
  name          = "alias/${local.name}"
  target_key_id = aws_kms_key.main.key_id
}

# Entries without values: a value in Terraform would be in its state. docs/runbook.md puts the first ones,
# `kalshi rotate-password` those that follow. Each gatherer has a password of its own, which only it may change.
locals {
  gatherer_passwords = [for gatherer in local.gatherers : "${gatherer}-db-password"]
  # The deduplicator's machine uses and rotates these.
  merger_passwords = ["dedup-reader-db-password", "deduplicator-db-password", "exporter-db-password"]
  key_secrets      = [for n in range(var.gatherer_count) : "kalshi-api-key-${n + 1}"]
  secret_names     = concat(local.gatherer_passwords, local.merger_passwords, local.key_secrets)
}

resource "aws_secretsmanager_secret" "main" {
  #checkov:skip=CKV2_AWS_57: kalshi-rotate.timer rotates passwords, for a function of AWS cannot reach the gatherers' databases; the exchange makes its keys by hand
  for_each                = toset(local.secret_names)
  name                    = "${var.project}/${var.environment}/${each.key}"
  kms_key_id              = aws_kms_key.main.arn
  recovery_window_in_days = 30
}
