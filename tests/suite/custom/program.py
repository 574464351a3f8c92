"""Carries operations out on a store of its own: a second log, with the backend `local`."""

import json
import os
import subprocess
import sys

asked = json.load(sys.stdin)
parameters = asked["parameters"]
if asked["content"]:
    parameters["path"] = asked["content"]
is_add = asked["operation_type"] in ("add", "upload")
if is_add and os.path.isdir(parameters["path"]) and parameters.get("recursive") != "true":
    print(json.dumps({"error_type": "is_directory", "message": "it is a directory; say so with `recursive=true`"}))
    sys.exit(1)
command = [os.environ["STORE_PROGRAM"], "--base-path", os.environ["STORE"], "--json", "submit"]
command += ["--backend", "local", "--from-file", "-", "--wait"]
line = json.dumps({"operation_type": asked["operation_type"], "parameters": parameters})
ran = subprocess.run(command, input=line + "\n", text=True, stdout=subprocess.PIPE)
said = json.loads(ran.stdout)
if "operations" not in said:
    # The store looks at names before it logs anything, and has no word of its own for those that climb.
    bad = said["error"]["bad_inputs"][0]
    climbs = any(".." in value.split("/") for value in parameters.values())
    print(json.dumps({"error_type": "bad_path" if climbs else bad["error_type"], "message": bad["message"]}))
    sys.exit(1)
operation = said["operations"][0]
if operation["status"] != "completed":
    print(json.dumps({"error_type": operation["error_type"], "message": operation["error"]}))
    sys.exit(1 if operation["failure_class"] == "permanent" else 75)
print(json.dumps({**operation["result"], "receipt": operation["receipt"] or {}}))
