# Who may do what. A machine reads its own secrets and the package, and rotates the passwords of the roles that
# it logs in as; the deduplicator's also adds to the archive. Nothing is written with a star: a test reads this
# file.

locals {
  ec2_assumes = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "ec2.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })
  # What every machine needs beside its secrets.
  package_statement = {
    Sid      = "ReadThePackage"
    Effect   = "Allow"
    Action   = ["s3:GetObject"]
    Resource = ["arn:aws:s3:::${var.package_bucket}/${var.package_key}"]
  }
  # GenerateDataKey: for the versions that a rotation adds.
  decrypt_statement = {
    Sid      = "OpenSecrets"
    Effect   = "Allow"
    Action   = ["kms:Decrypt", "kms:GenerateDataKey"]
    Resource = [aws_kms_key.main.arn]
    Condition = {
      StringEquals = { "kms:ViaService" = "secretsmanager.${var.aws_region}.amazonaws.com" }
    }
  }
  # What `kalshi rotate-password` does beside reading.
  rotate_actions = [
    "secretsmanager:DescribeSecret", "secretsmanager:PutSecretValue", "secretsmanager:UpdateSecretVersionStage",
  ]
  # Shells without an open port. Its actions know no single resources, which is why it is AWS' own policy.
  session_manager = "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"
}

# One for each gatherer: it cannot read the key of another.
resource "aws_iam_role" "gatherer" {
  count              = var.gatherer_count
  name               = "${local.name}-${local.gatherers[count.index]}"
  assume_role_policy = local.ec2_assumes
}

resource "aws_iam_role_policy" "gatherer" {
  count = var.gatherer_count
  name  = "recorder"
  role  = aws_iam_role.gatherer[count.index].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid    = "ReadItsSecrets"
        Effect = "Allow"
        Action = ["secretsmanager:GetSecretValue"]
        Resource = [
          aws_secretsmanager_secret.main["kalshi-api-key-${count.index + 1}"].arn,
          aws_secretsmanager_secret.main["${local.gatherers[count.index]}-db-password"].arn,
          # It sets the first password of that role in its own database.
          aws_secretsmanager_secret.main["dedup-reader-db-password"].arn,
        ]
      },
      {
        Sid      = "RotateItsPassword"
        Effect   = "Allow"
        Action   = local.rotate_actions
        Resource = [aws_secretsmanager_secret.main["${local.gatherers[count.index]}-db-password"].arn]
      },
      local.decrypt_statement,
      local.package_statement,
    ]
  })
}

resource "aws_iam_role_policy_attachment" "gatherer" {
  count      = var.gatherer_count
  role       = aws_iam_role.gatherer[count.index].name
  policy_arn = local.session_manager
}

resource "aws_iam_instance_profile" "gatherer" {
  count = var.gatherer_count
  name  = "${local.name}-${local.gatherers[count.index]}"
  role  = aws_iam_role.gatherer[count.index].name
}

resource "aws_iam_role" "deduplicator" {
  name               = "${local.name}-deduplicator"
  assume_role_policy = local.ec2_assumes
}

resource "aws_iam_role_policy" "deduplicator" {
  name = "merger"
  role = aws_iam_role.deduplicator.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid      = "ReadItsSecrets"
        Effect   = "Allow"
        Action   = ["secretsmanager:GetSecretValue"]
        Resource = [for name in local.merger_passwords : aws_secretsmanager_secret.main[name].arn]
      },
      {
        Sid      = "RotateItsPasswords"
        Effect   = "Allow"
        Action   = local.rotate_actions
        Resource = [for name in local.merger_passwords : aws_secretsmanager_secret.main[name].arn]
      },
      # No deletion: what is archived stays.
      {
        Sid      = "AddToTheArchive"
        Effect   = "Allow"
        Action   = ["s3:AbortMultipartUpload", "s3:GetObject", "s3:PutObject"]
        Resource = ["${aws_s3_bucket.archive.arn}/v1/*"]
      },
      {
        Sid       = "ListTheArchive"
        Effect    = "Allow"
        Action    = ["s3:ListBucket"]
        Resource  = [aws_s3_bucket.archive.arn]
        Condition = { StringLike = { "s3:prefix" = ["v1/*"] } }
      },
      {
        Sid      = "EncryptTheArchive"
        Effect   = "Allow"
        Action   = ["kms:Decrypt", "kms:GenerateDataKey"]
        Resource = [aws_kms_key.main.arn]
        Condition = {
          StringEquals = { "kms:ViaService" = "s3.${var.aws_region}.amazonaws.com" }
        }
      },
      local.decrypt_statement,
      local.package_statement,
    ]
  })
}

resource "aws_iam_role_policy_attachment" "deduplicator" {
  role       = aws_iam_role.deduplicator.name
  policy_arn = local.session_manager
}

resource "aws_iam_instance_profile" "deduplicator" {
  name = "${local.name}-deduplicator"
  role = aws_iam_role.deduplicator.name
}

resource "aws_iam_role" "flow" {
  name = "${local.name}-flow-logs"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "vpc-flow-logs.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = local.account } }
    }]
  })
}

resource "aws_iam_role_policy" "flow" {
  name = "write"
  role = aws_iam_role.flow.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
      Resource = ["${aws_cloudwatch_log_group.flow.arn}:log-stream:*"]
    }]
  })
}

resource "aws_iam_role" "rds_monitoring" {
  name = "${local.name}-rds-monitoring"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "monitoring.rds.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = local.account } }
    }]
  })
}

resource "aws_iam_role_policy_attachment" "rds_monitoring" {
  role       = aws_iam_role.rds_monitoring.name
  policy_arn = "arn:aws:iam::aws:policy/service-role/AmazonRDSEnhancedMonitoringRole"
}
