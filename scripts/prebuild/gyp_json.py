"""A generator for gyp that builds nothing: it prints what gyp made of the files, as JSON."""

import json

# What gyp's own generators answer here is where they put their output; there is none.
generator_default_variables = {
    name: ""
    for name in (
        "CONFIGURATION_NAME",
        "EXECUTABLE_PREFIX",
        "EXECUTABLE_SUFFIX",
        "INTERMEDIATE_DIR",
        "LIB_DIR",
        "PRODUCT_DIR",
        "SHARED_INTERMEDIATE_DIR",
        "SHARED_LIB_DIR",
        "SHARED_LIB_PREFIX",
        "SHARED_LIB_SUFFIX",
        "STATIC_LIB_PREFIX",
        "STATIC_LIB_SUFFIX",
    )
}


def GenerateOutput(target_list, target_dicts, data, params):
    print(json.dumps(target_dicts))
