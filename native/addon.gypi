{
  "targets": [
    {
      "target_name": "gateway_lock",
      "sources": ["binding.cc"],
      "dependencies": ["<!(node -p \"require('node-addon-api').targets\"):node_addon_api"],
      # A worker that is being terminated can't be thrown at; without the second one that would end the whole process.
      "defines": ["NAPI_VERSION=8", "NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS"],
      "conditions": [
        ["OS=='linux'", {
          "sources": [
            "posix/file_lock.cc",
            "posix/handle.cc",
            "posix/lock_wait.cc",
            "linux/filesystem.cc",
            "linux/listener.cc",
            "linux/process.cc",
            "linux/wait_signal.cc"
          ],
          # A worker thread that ends must not unmap code that its host still runs.
          "ldflags": ["-Wl,-z,nodelete"]
        }, {
          "sources": ["other/unsupported.cc"]
        }]
      ],
      "cflags_cc": ["-std=c++17", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wconversion", "-Wno-unused-parameter"]
    }
  ]
}
