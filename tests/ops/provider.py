"""Terraform's files against the schema of the AWS provider itself: every resource, attribute and block is one
that the provider knows, and none that it requires is missing. And their layout, by the formatter that is in
`terraform fmt`.

The schema is that from which the bindings of CDK for Terraform are generated: a package of npm, which is to be
had where the provider's own executable is not. `.ci/install ops` puts both into a folder of their own.
"""

import os
import pathlib
import re
import tarfile

import terraform
from report import ROOT, none, require, run

TOOLS = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "kalshi-ops"
# What every resource may have besides.
META = {"count", "for_each", "depends_on", "lifecycle", "provider", "provisioner", "connection"}
# A property, and whether it may be left out; its link names it as Terraform does.
PROPERTY = re.compile(r"#(\w+) \w+#\w+\}\s*(?:\*[^\n]*\n\s*)*?\*/\s*readonly (\w+)(\??): ([^;]+);")
BLOCK = re.compile(r"^export interface (\w+)(?: extends cdktf\.TerraformMetaArguments)? \{\n(.*?)^\}", re.DOTALL | re.MULTILINE)


class Schema:
    """Attributes of resources and of their blocks."""

    def __init__(self):
        found = sorted(TOOLS.glob("cdktf-provider-aws-*.tgz"))
        require(found, f"the provider's schema is missing in {TOOLS}: run .ci/install ops")
        self.version = None
        self.texts = {}
        wanted = {self.folder(kind, name): (kind, name) for kind, name in used()}
        with tarfile.open(found[-1]) as archive:
            for member in archive:
                place = member.name.removeprefix("package/lib/").removesuffix("/index.d.ts")
                if place in wanted and member.name.endswith("/index.d.ts"):
                    self.texts[wanted[place]] = archive.extractfile(member).read().decode()
        for text in self.texts.values():
            self.version = re.search(r"hashicorp/aws/([\d.]+)/docs", text)[1]

    @staticmethod
    def folder(kind, name):
        own = name.removeprefix("aws_").replace("_", "-")
        return f"data-aws-{own}" if kind == "data" else own

    def block(self, kind, name):
        """The top of a resource: its properties, and its interfaces by name."""
        text = self.texts.get((kind, name))
        if text is None:
            return None, None
        interfaces = {found[1]: found[2] for found in BLOCK.finditer(text)}
        top = next(own for own in interfaces if own.endswith("Config") and "TerraformMetaArguments" in
                   text[text.index(f"interface {own}"):][:200])
        return top, interfaces

    @staticmethod
    def properties(body):
        """Names as Terraform has them, to whether it is required and the interface of a block."""
        return {
            found[1]: (not found[3], re.match(r"([A-Z]\w+)(?:\[\])?", found[4]))
            for found in PROPERTY.finditer(body)
        }


def used():
    return {
        (kind, terraform.unquoted(name))
        for path in files()
        for kind in ["resource", "data"]
        for block in terraform.parse(path).get(kind, [])
        for name in block if terraform.unquoted(name).startswith("aws_")
    }


def files():
    return sorted(terraform.FOLDER.rglob("*.tf"))


def differs(schema, interfaces, interface, body, where):
    """What does not fit between a block as it is written and the provider's."""
    known = schema.properties(interfaces[interface])
    written = {key for key in body if not key.startswith("__")}
    dynamic = {terraform.unquoted(name) for block in body.get("dynamic", []) for name in block}
    for key in sorted(written - META - known.keys() - {"dynamic"}):
        yield f"{where}: {key} is nothing that the provider knows"
    for key, (required, block) in known.items():
        if required and key not in written | dynamic:
            yield f"{where}: {key} is missing"
        if block and key in body and block[1] in interfaces:
            for inner in body[key]:
                if isinstance(inner, dict):
                    yield from differs(schema, interfaces, block[1], inner, f"{where}.{key}")


def check():
    schema, seen, problems = Schema(), 0, []
    for path in files():
        for kind in ["resource", "data"]:
            for block in terraform.parse(path).get(kind, []):
                for name, bodies in block.items():
                    name = terraform.unquoted(name)
                    if not name.startswith("aws_"):
                        continue
                    for own, body in bodies.items():
                        if own.startswith("__"):
                            continue
                        where = f"{path.relative_to(ROOT)}: {name}.{terraform.unquoted(own)}"
                        top, interfaces = schema.block(kind, name)
                        if top is None:
                            problems.append(f"{where}: the provider has no such {kind}")
                            continue
                        seen += 1
                        problems += differs(schema, interfaces, top, body, where)
    none(problems, f"hashicorp/aws {schema.version}")
    formatter = TOOLS / "hclfmt"
    require(formatter.exists(), f"{formatter} is missing: run .ci/install ops")
    none((path.relative_to(ROOT) for path in files()
          if run(formatter, input=path.read_text()) != path.read_text()), "not laid out as terraform fmt would")
    return f"{seen} resources fit hashicorp/aws {schema.version}, {len(files())} files are laid out as terraform fmt would"
