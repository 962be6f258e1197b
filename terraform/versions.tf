# One environment of the platform: three gatherers in three zones, a deduplicator, production in RDS, and the
# archive's bucket. docs/runbook.md says in which order.

terraform {
  required_version = ">= 1.10"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.0"
    }
  }
  # State and lock are in the bucket that bootstrap/ makes: terraform init -backend-config="bucket=..."
  backend "s3" {
    key          = "kalshi.tfstate"
    encrypt      = true
    use_lockfile = true
  }
}

provider "aws" {
  region = var.aws_region
  default_tags {
    tags = {
      project     = var.project
      environment = var.environment
      managed_by  = "terraform"
    }
  }
}

data "aws_caller_identity" "current" {}

data "aws_availability_zones" "available" {
  #checkov:skip=CKV_AWS_394: the first three by name are taken, and a new zone is named after those that exist
  state = "available"
  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}

locals {
  name    = "${var.project}-${var.environment}"
  account = data.aws_caller_identity.current.account_id
  zones   = slice(data.aws_availability_zones.available.names, 0, 3)
  # gatherer-1 and so on, as operators, DNS and the configuration call them.
  gatherers = [for n in range(var.gatherer_count) : "gatherer-${n + 1}"]
}
