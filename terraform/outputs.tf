output "gatherer_ips" {
  description = "Private addresses of gatherer-1 and so on."
  value       = aws_instance.gatherer[*].private_ip
}

output "deduplicator_ip" {
  description = "Private address of the deduplicator."
  value       = aws_instance.deduplicator.private_ip
}

output "rds_endpoint" {
  description = "Host name of production."
  value       = aws_db_instance.production.address
}

output "s3_bucket" {
  description = "The archive's bucket."
  value       = aws_s3_bucket.archive.bucket
}

output "rds_admin_secret" {
  description = "The secret in which RDS keeps the password of its administrator."
  value       = aws_db_instance.production.master_user_secret[0].secret_arn
}
