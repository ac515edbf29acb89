// Run the class of docs/howto/sessions.md on the npm package ws, and print what it reports as JSON.
//
//     node tests/clients/desk_client.mjs FILE URL
//
// A line on stdin is sent, "close" closes. Times of reconnecting are shortened to a hundredth.
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import WebSocket from "ws";

globalThis.WebSocket = class extends WebSocket {
  constructor(...args) {
    super(...args);
    // A browser does not end its page because a connection fails; this package throws if there is no listener.
    this.on("error", () => {});
  }
};
const { setTimeout } = globalThis;
globalThis.setTimeout = (callback, delay, ...rest) => setTimeout(callback, delay / 100, ...rest);

const tell = (...what) => console.log(JSON.stringify(what));
const [file, url] = process.argv.slice(2);
const { Desk } = await import(pathToFileURL(file));
const desk = new Desk(url, {
  open: (recovered, data) => tell("open", recovered, data),
  message: ({ from, text }) => tell("message", from, text),
  end: (code) => {
    tell("end", code);
    process.exit(0);
  },
});

createInterface({ input: process.stdin }).on("line", (line) => {
  if (line === "close") desk.close();
  else tell("sent", desk.send(JSON.parse(line)));
});
