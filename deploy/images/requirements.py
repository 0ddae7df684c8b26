"""Print what the package and the named extras of it require, without the package itself.

An image's layer of packages is made from this, so that the project's own code is not part of it.
"""

import sys
import tomllib

with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
requirements = list(project["dependencies"])
for extra in sys.argv[1:]:
    requirements += project["optional-dependencies"][extra]
own = f"{project['name']}["
print(*(each for each in requirements if not each.startswith(own)), sep="\n")
