// Outlives its parent: connected to the port that it is given, it says who it is, and ends with the connection.

import { connect } from "node:net";

const socket = connect({ port: Number(process.argv[2]), host: "127.0.0.1" });
socket.on("connect", () => socket.write(`${process.pid}\n`));
socket.on("error", () => {});
socket.on("close", () => process.exit(0));
