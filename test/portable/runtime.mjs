// How a fixture is started: an emulated runtime can't be started by its `process.execPath`, so it may be told as a JSON array.

export const RUNTIME = JSON.parse(process.env.GATEWAY_LOCK_TEST_RUNTIME ?? JSON.stringify([process.execPath]));
