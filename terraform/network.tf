# A network over three zones. Machines are in private subnets; each zone has its own way out (NAT), so that
# the loss of a zone takes one gatherer and no more.

resource "aws_vpc" "main" {
  cidr_block           = var.vpc_cidr
  enable_dns_support   = true
  enable_dns_hostnames = true
  tags                 = { Name = local.name }
}

# Nothing uses it: it lets nothing in or out.
resource "aws_default_security_group" "none" {
  vpc_id = aws_vpc.main.id
}

resource "aws_subnet" "public" {
  count             = length(local.zones)
  vpc_id            = aws_vpc.main.id
  availability_zone = local.zones[count.index]
  cidr_block        = cidrsubnet(var.vpc_cidr, 4, count.index)
  tags              = { Name = "${local.name}-public-${local.zones[count.index]}" }
}

resource "aws_subnet" "private" {
  count             = length(local.zones)
  vpc_id            = aws_vpc.main.id
  availability_zone = local.zones[count.index]
  cidr_block        = cidrsubnet(var.vpc_cidr, 4, 8 + count.index)
  tags              = { Name = "${local.name}-private-${local.zones[count.index]}" }
}

resource "aws_internet_gateway" "main" {
  vpc_id = aws_vpc.main.id
  tags   = { Name = local.name }
}

resource "aws_eip" "nat" {
  #checkov:skip=CKV2_AWS_19: they belong to the NAT gateways below
  count  = length(local.zones)
  domain = "vpc"
  tags   = { Name = "${local.name}-nat-${local.zones[count.index]}" }
}

resource "aws_nat_gateway" "main" {
  count         = length(local.zones)
  allocation_id = aws_eip.nat[count.index].id
  subnet_id     = aws_subnet.public[count.index].id
  tags          = { Name = "${local.name}-${local.zones[count.index]}" }
  depends_on    = [aws_internet_gateway.main]
}

resource "aws_route_table" "public" {
  vpc_id = aws_vpc.main.id
  tags   = { Name = "${local.name}-public" }
}

resource "aws_route" "public" {
  route_table_id         = aws_route_table.public.id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.main.id
}

resource "aws_route_table_association" "public" {
  count          = length(local.zones)
  subnet_id      = aws_subnet.public[count.index].id
  route_table_id = aws_route_table.public.id
}

resource "aws_route_table" "private" {
  count  = length(local.zones)
  vpc_id = aws_vpc.main.id
  tags   = { Name = "${local.name}-private-${local.zones[count.index]}" }
}

resource "aws_route" "private" {
  count                  = length(local.zones)
  route_table_id         = aws_route_table.private[count.index].id
  destination_cidr_block = "0.0.0.0/0"
  nat_gateway_id         = aws_nat_gateway.main[count.index].id
}

resource "aws_route_table_association" "private" {
  count          = length(local.zones)
  subnet_id      = aws_subnet.private[count.index].id
  route_table_id = aws_route_table.private[count.index].id
}

# What goes to the archive does not pay for NAT.
resource "aws_vpc_endpoint" "s3" {
  vpc_id          = aws_vpc.main.id
  service_name    = "com.amazonaws.${var.aws_region}.s3"
  route_table_ids = aws_route_table.private[*].id
  tags            = { Name = "${local.name}-s3" }
}

resource "aws_cloudwatch_log_group" "flow" {
  name              = "/${local.name}/flow"
  retention_in_days = 365
  kms_key_id        = aws_kms_key.main.arn
}

resource "aws_flow_log" "main" {
  vpc_id          = aws_vpc.main.id
  traffic_type    = "REJECT"
  log_destination = aws_cloudwatch_log_group.flow.arn
  iam_role_arn    = aws_iam_role.flow.arn
}

resource "aws_route53_zone" "internal" {
  #checkov:skip=CKV2_AWS_38: DNSSEC is for public zones, this one is private
  #checkov:skip=CKV2_AWS_39: queries inside the network are not worth a log of their own
  name = "internal"
  vpc {
    vpc_id = aws_vpc.main.id
  }
}

resource "aws_route53_record" "gatherer" {
  count   = var.gatherer_count
  zone_id = aws_route53_zone.internal.zone_id
  name    = "${local.gatherers[count.index]}.internal"
  type    = "A"
  ttl     = 60
  records = [aws_instance.gatherer[count.index].private_ip]
}

resource "aws_route53_record" "deduplicator" {
  zone_id = aws_route53_zone.internal.zone_id
  name    = "deduplicator.internal"
  type    = "A"
  ttl     = 60
  records = [aws_instance.deduplicator.private_ip]
}

# Who may talk to whom. Rules stand beside the groups, so that two groups may name each other.

resource "aws_security_group" "gatherer" {
  name        = "${local.name}-gatherer"
  description = "Gatherers"
  vpc_id      = aws_vpc.main.id
}

resource "aws_security_group" "deduplicator" {
  name        = "${local.name}-deduplicator"
  description = "The deduplicator"
  vpc_id      = aws_vpc.main.id
}

resource "aws_security_group" "production" {
  name        = "${local.name}-production"
  description = "Production's database"
  vpc_id      = aws_vpc.main.id
}

resource "aws_vpc_security_group_ingress_rule" "gatherer_database" {
  security_group_id            = aws_security_group.gatherer.id
  referenced_security_group_id = aws_security_group.deduplicator.id
  ip_protocol                  = "tcp"
  from_port                    = 5432
  to_port                      = 5432
  description                  = "The deduplicator reads"
}

resource "aws_vpc_security_group_ingress_rule" "production_database" {
  security_group_id            = aws_security_group.production.id
  referenced_security_group_id = aws_security_group.deduplicator.id
  ip_protocol                  = "tcp"
  from_port                    = 5432
  to_port                      = 5432
  description                  = "The deduplicator writes"
}

resource "aws_vpc_security_group_egress_rule" "deduplicator_gatherers" {
  security_group_id            = aws_security_group.deduplicator.id
  referenced_security_group_id = aws_security_group.gatherer.id
  ip_protocol                  = "tcp"
  from_port                    = 5432
  to_port                      = 5432
  description                  = "The gatherers' databases"
}

resource "aws_vpc_security_group_egress_rule" "deduplicator_production" {
  security_group_id            = aws_security_group.deduplicator.id
  referenced_security_group_id = aws_security_group.production.id
  ip_protocol                  = "tcp"
  from_port                    = 5432
  to_port                      = 5432
  description                  = "Production"
}

# The exchange, Debian's packages and AWS' own services have no fixed addresses; all speak TLS.
resource "aws_vpc_security_group_egress_rule" "https" {
  for_each = {
    gatherer     = aws_security_group.gatherer.id
    deduplicator = aws_security_group.deduplicator.id
  }
  security_group_id = each.value
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  description       = "The exchange, packages, AWS"
}

resource "aws_vpc_security_group_ingress_rule" "monitoring" {
  for_each = {
    for rule in concat(
      setproduct(["gatherer"], ["8080", "9090"], var.monitoring_cidrs),
      # What verification found is told by node_exporter.
      setproduct(["deduplicator"], ["8080", "9090", "9100"], var.monitoring_cidrs),
    ) :
    join("-", rule) => { role = rule[0], port = rule[1], cidr = rule[2] }
  }
  security_group_id = each.value.role == "gatherer" ? aws_security_group.gatherer.id : aws_security_group.deduplicator.id
  cidr_ipv4         = each.value.cidr
  ip_protocol       = "tcp"
  from_port         = each.value.port
  to_port           = each.value.port
  description       = "Health and metrics"
}
