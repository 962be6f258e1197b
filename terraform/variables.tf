variable "project" {
  type        = string
  description = "Begins every name."
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,20}$", var.project))
    error_message = "Lower-case letters, digits and hyphens, at most 21, beginning with a letter."
  }
}

variable "environment" {
  type        = string
  description = "Follows the project in every name: prod, staging."
  validation {
    condition     = can(regex("^[a-z][a-z0-9]{0,9}$", var.environment))
    error_message = "Lower-case letters and digits, at most 10, beginning with a letter."
  }
}

variable "aws_region" {
  type        = string
  description = "A region with at least three zones."
  default     = "us-east-1"
}

variable "vpc_cidr" {
  type        = string
  description = "Addresses of the network; each zone takes two 16ths of it."
  default     = "10.0.0.0/16"
  validation {
    condition     = can(cidrhost(var.vpc_cidr, 0)) && tonumber(split("/", var.vpc_cidr)[1]) <= 22
    error_message = "A CIDR block of at most 22 bits of network, like 10.0.0.0/16."
  }
}

variable "gatherer_count" {
  type        = number
  description = "Machines that each record everything; they are spread over the zones."
  default     = 3
  validation {
    condition     = var.gatherer_count >= 1 && var.gatherer_count <= 8 && floor(var.gatherer_count) == var.gatherer_count
    error_message = "A whole number from 1 to 8."
  }
}

variable "gatherer_instance_type" {
  type        = string
  description = "An arm64 type: the package is built for it."
  default     = "t4g.2xlarge"
}

variable "deduplicator_instance_type" {
  type        = string
  description = "An arm64 type."
  default     = "t4g.xlarge"
}

variable "rds_instance_class" {
  type        = string
  description = "Of production."
  default     = "db.t4g.large"
}

variable "gatherer_volume_size" {
  type        = number
  description = "GiB for a gatherer's journal and database; journal.max_bytes (50 GiB) has to fit beside the rows."
  default     = 200
  validation {
    condition     = var.gatherer_volume_size >= 100
    error_message = "At least 100 GiB."
  }
}

variable "rds_storage_size" {
  type        = number
  description = "GiB of production at the start; it grows by itself to four times that."
  default     = 500
}

variable "rds_multi_az" {
  type        = bool
  description = "A standby of production in another zone."
  default     = true
}

variable "rds_backup_days" {
  type        = number
  description = "How far back production can be restored to any second."
  default     = 14
  validation {
    condition     = var.rds_backup_days >= 7 && var.rds_backup_days <= 35
    error_message = "From 7 to 35."
  }
}

variable "monitoring_cidrs" {
  type        = list(string)
  description = "Networks whose machines may read /health (8080), /metrics (9090) and node_exporter (9100), such as Prometheus'."
  default     = []
}

variable "package_bucket" {
  type        = string
  description = "The bucket that holds the Debian package."
}

variable "package_key" {
  type        = string
  description = "The package's key in that bucket, such as kalshi_0.1.0_arm64.deb."
}
