// pm2 starts a program again whatever its exit code was, and takes SIGKILL for exit code 0. So a duplicate leaves with a code of its own, and
// `stop_exit_codes: [0]` would leave a killed gateway down. With GATEWAY_ON_DUPLICATE: "standby" it stays instead, and takes over.

module.exports = {
  apps: [
    {
      name: "gateway",
      script: "supervised.mjs",
      env: {
        STATE_DIRECTORY: "/var/lib/gateway",
        GATEWAY_DUPLICATE_EXIT_CODE: "78",
      },
      stop_exit_codes: [78],
      kill_timeout: 15_000, // ms; longer than the gateway gives its clients
    },
  ],
};
