# Production: PostgreSQL as RDS has it, without TimescaleDB.

resource "aws_db_subnet_group" "production" {
  name       = local.name
  subnet_ids = aws_subnet.private[*].id
}

resource "aws_db_parameter_group" "production" {
  name_prefix = "${local.name}-"
  family      = "postgres17"

  parameter {
    name  = "rds.force_ssl"
    value = "1"
  }
  parameter {
    name  = "password_encryption"
    value = "scram-sha-256"
  }
  # Slow statements are named. Their text holds no secret: passwords reach the server as verifiers.
  parameter {
    name  = "log_min_duration_statement"
    value = "5000"
  }
  # A statement that fails is logged as it came, which an ALTER ROLE with a password must not be.
  parameter {
    name  = "log_min_error_statement"
    value = "panic"
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_db_instance" "production" {
  #checkov:skip=CKV_AWS_161: the roles log in with passwords over TLS; tokens of IAM end after 15 minutes and limit new sessions to 200 a second
  #checkov:skip=CKV2_AWS_30: log_statement would write each of thousands of COPY statements a minute; slow ones are logged
  identifier     = local.name
  engine         = "postgres"
  engine_version = "17"
  instance_class = var.rds_instance_class

  storage_type          = "gp3"
  allocated_storage     = var.rds_storage_size
  max_allocated_storage = 4 * var.rds_storage_size
  storage_encrypted     = true
  kms_key_id            = aws_kms_key.main.arn

  # RDS refuses `admin`.
  username                      = "kalshi_admin"
  manage_master_user_password   = true
  master_user_secret_kms_key_id = aws_kms_key.main.arn

  db_subnet_group_name   = aws_db_subnet_group.production.name
  vpc_security_group_ids = [aws_security_group.production.id]
  parameter_group_name   = aws_db_parameter_group.production.name
  publicly_accessible    = false
  multi_az               = var.rds_multi_az
  ca_cert_identifier     = "rds-ca-rsa2048-g1"

  backup_retention_period   = var.rds_backup_days
  backup_window             = "08:00-08:30"
  maintenance_window        = "thu:09:00-thu:09:30"
  copy_tags_to_snapshot     = true
  deletion_protection       = true
  skip_final_snapshot       = false
  final_snapshot_identifier = "${local.name}-final"

  auto_minor_version_upgrade      = true
  enabled_cloudwatch_logs_exports = ["postgresql", "upgrade"]
  performance_insights_enabled    = true
  performance_insights_kms_key_id = aws_kms_key.main.arn
  monitoring_interval             = 60
  monitoring_role_arn             = aws_iam_role.rds_monitoring.arn

  lifecycle {
    prevent_destroy = true
  }
}
