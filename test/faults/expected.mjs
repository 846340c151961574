// What must come of it when a call is refused: by call, errno and path, with the reason. What is not said here is LOCK_FAILED in a path that locks, BIND_FAILED
// in one that binds: see `expectedOf`.

export {};
