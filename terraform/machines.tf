# Machines with Debian on arm64. They are set up at their first start and changed by hand afterwards
# (docs/runbook.md), so that a plan never replaces one that records.

data "aws_ssm_parameter" "debian" {
  name = "/aws/service/debian/release/12/latest/arm64"
}

# Journal and database of a gatherer, on a disk of their own that outlives the machine.
resource "aws_ebs_volume" "gatherer" {
  count             = var.gatherer_count
  availability_zone = local.zones[count.index % length(local.zones)]
  size              = var.gatherer_volume_size
  type              = "gp3"
  encrypted         = true
  kms_key_id        = aws_kms_key.main.arn
  tags              = { Name = "${local.name}-${local.gatherers[count.index]}" }

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_instance" "gatherer" {
  count                  = var.gatherer_count
  ami                    = data.aws_ssm_parameter.debian.value
  instance_type          = var.gatherer_instance_type
  subnet_id              = aws_subnet.private[count.index % length(local.zones)].id
  vpc_security_group_ids = [aws_security_group.gatherer.id]
  iam_instance_profile   = aws_iam_instance_profile.gatherer[count.index].name
  ebs_optimized          = true
  monitoring             = true
  tags                   = { Name = "${local.name}-${local.gatherers[count.index]}" }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  root_block_device {
    volume_type = "gp3"
    volume_size = 20
    encrypted   = true
    kms_key_id  = aws_kms_key.main.arn
  }

  user_data = templatefile("${path.module}/templates/gatherer.sh", {
    gatherer          = local.gatherers[count.index]
    region            = var.aws_region
    secrets           = "${var.project}/${var.environment}"
    key_secret        = "kalshi-api-key-${count.index + 1}"
    package           = "s3://${var.package_bucket}/${var.package_key}"
    volume            = replace(aws_ebs_volume.gatherer[count.index].id, "-", "")
    deduplicator_cidr = aws_subnet.private[0].cidr_block
  })

  lifecycle {
    ignore_changes = [ami, user_data]
  }
}

resource "aws_volume_attachment" "gatherer" {
  count       = var.gatherer_count
  device_name = "/dev/sdf"
  volume_id   = aws_ebs_volume.gatherer[count.index].id
  instance_id = aws_instance.gatherer[count.index].id
}

resource "aws_instance" "deduplicator" {
  ami                    = data.aws_ssm_parameter.debian.value
  instance_type          = var.deduplicator_instance_type
  subnet_id              = aws_subnet.private[0].id
  vpc_security_group_ids = [aws_security_group.deduplicator.id]
  iam_instance_profile   = aws_iam_instance_profile.deduplicator.name
  ebs_optimized          = true
  monitoring             = true
  tags                   = { Name = "${local.name}-deduplicator" }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  root_block_device {
    volume_type = "gp3"
    volume_size = 20
    encrypted   = true
    kms_key_id  = aws_kms_key.main.arn
  }

  user_data = templatefile("${path.module}/templates/deduplicator.sh", {
    region          = var.aws_region
    secrets         = "${var.project}/${var.environment}"
    package         = "s3://${var.package_bucket}/${var.package_key}"
    production_host = aws_db_instance.production.address
    gatherers       = join(" ", local.gatherers)
    archive         = "s3://${aws_s3_bucket.archive.bucket}"
  })

  lifecycle {
    ignore_changes = [ami, user_data]
  }
}
