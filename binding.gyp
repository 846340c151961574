{
  "targets": [
    {
      "target_name": "gateway_lock",
      "sources": ["native/binding.cc"],
      "dependencies": ["<!(node -p \"require('node-addon-api').targets\"):node_addon_api"],
      "defines": ["NAPI_VERSION=8"],
      "conditions": [
        ["OS=='linux'", {
          "sources": [
            "native/posix/file_lock.cc",
            "native/posix/handle.cc",
            "native/posix/lock_wait.cc",
            "native/linux/listener.cc",
            "native/linux/process.cc",
            "native/linux/wait_signal.cc"
          ],
          # A worker thread that ends must not unmap code that its host still runs.
          "ldflags": ["-Wl,-z,nodelete"]
        }, {
          "sources": ["native/other/unsupported.cc"]
        }]
      ],
      "cflags_cc": ["-std=c++17", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wconversion", "-Wno-unused-parameter"]
    }
  ]
}
