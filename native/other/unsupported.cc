// A system without a kernel lock that we know must not get a lock that only looks like one.
#error "gateway-lock does not support this system: see Platforms in README.md"
