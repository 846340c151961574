# What node-gyp's addon.gypi and Node's own common.gypi say to g++, said to zig.
{
  "target_defaults": {
    "type": "loadable_module",
    "defines": ["NODE_GYP_MODULE_NAME=>(_target_name)", "BUILDING_NODE_EXTENSION"],
    "cflags": ["-O2", "-ffunction-sections", "-fdata-sections"],
    "cflags_cc": ["-fno-rtti", "-fvisibility-inlines-hidden", "-fvisibility-global-new-delete=force-hidden"],
    "ldflags": ["-s"],
    "conditions": [
      ["OS=='linux'", {
        # libc++ is in the binary: its operator new must not become that of the whole process.
        "ldflags": ["-Wl,--gc-sections", "-Wl,--version-script=scripts/prebuild/exports.map"]
      }],
      ["OS=='mac'", {
        "cflags": ["-Werror=unguarded-availability"],
        # node itself has Node-API; the linker leaves the path of the output as the name unless told another.
        "ldflags": ["-Wl,-x", "-Wl,-dead_strip", "-Wl,-undefined,dynamic_lookup", "-Wl,-install_name,@rpath/gateway-lock.node"]
      }]
    ]
  }
}
