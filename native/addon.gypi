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
            "posix/address.cc",
            "posix/file_lock.cc",
            "posix/handle.cc",
            "posix/handle_wait.cc",
            "posix/inherited.cc",
            "posix/local_socket.cc",
            "posix/lock_wait.cc",
            "posix/sent_signals.cc",
            "posix/thread.cc",
            "linux/filesystem.cc",
            "linux/listener.cc",
            "linux/listening.cc",
            "linux/local_system.cc",
            "linux/notify.cc",
            "linux/port_sockets.cc",
            "linux/process.cc",
            "linux/process_handle.cc",
            "linux/procfs.cc",
            "linux/sender.cc",
            "linux/wait_signal.cc",
            "linux/wake.cc"
          ],
          # A worker thread that ends must not unmap code that its host still runs.
          "ldflags": ["-Wl,-z,nodelete"]
        }],
        ["OS=='win'", {
          "sources": [
            "win/errors.cc",
            "win/file_lock.cc",
            "win/filesystem.cc",
            "win/handle.cc",
            "win/handle_wait.cc",
            "win/inherited.cc",
            "win/listener.cc",
            "win/local_socket.cc",
            "win/lock_wait.cc",
            "win/notify.cc",
            "win/port_sockets.cc",
            "win/process.cc",
            "win/process_handle.cc",
            "win/request.cc",
            "win/sent_signals.cc",
            "win/stay_loaded.cc",
            "win/wide.cc"
          ],
          "defines": ["_WIN32_WINNT=0x0a00", "WIN32_LEAN_AND_MEAN", "NOMINMAX", "UNICODE"],
          "libraries": ["-lws2_32", "-liphlpapi", "-lntdll"]
        }],
        ["OS=='mac'", {
          "sources": [
            "posix/address.cc",
            "posix/file_lock.cc",
            "posix/handle.cc",
            "posix/handle_wait.cc",
            "posix/inherited.cc",
            "posix/local_socket.cc",
            "posix/lock_wait.cc",
            "posix/sent_signals.cc",
            "posix/thread.cc",
            "macos/descriptors.cc",
            "macos/filesystem.cc",
            "macos/listener.cc",
            "macos/listening.cc",
            "macos/local_system.cc",
            "macos/notify.cc",
            "macos/port_sockets.cc",
            "macos/process.cc",
            "macos/process_handle.cc",
            "macos/sender.cc",
            "macos/stay_loaded.cc",
            "macos/wait_signal.cc",
            "macos/wake.cc"
          ],
          # cflags_cc is for the others: on a Mac, gyp takes the compiler's options from here alone.
          "xcode_settings": {
            "CLANG_CXX_LANGUAGE_STANDARD": "c++17",
            "CLANG_CXX_LIBRARY": "libc++",
            "GCC_SYMBOLS_PRIVATE_EXTERN": "YES",
            "MACOSX_DEPLOYMENT_TARGET": "11.0",
            "WARNING_CFLAGS": ["-Wall", "-Wextra", "-Wconversion", "-Wno-unused-parameter"]
          }
        }],
        ["OS!='linux' and OS!='mac' and OS!='win'", { "sources": ["other/unsupported.cc"] }]
      ],
      "cflags_cc": ["-std=c++17", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wconversion", "-Wno-unused-parameter"]
    }
  ]
}
