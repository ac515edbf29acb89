// The client's part of the first chat (examples/chat_client.py), played by the npm package ws.
//
//     node tests/clients/chat_client.mjs [URL]
import WebSocket from "ws";

const url = process.argv[2] ?? "ws://127.0.0.1:3000/ws/chat";
const ws = new WebSocket(url, ["chat", "superchat"]);
const log = (text) => console.log(`[CLIENT] ${text}`);
let questions = 0;

ws.on("open", () => {
  log("open()");
  ws.send("Hello!");
});

ws.on("message", (data) => {
  log(`Received: ${data}`);
  questions += 1;
  if (questions > 3) {
    ws.send("Goodbye!");
    ws.close(1000);
    return;
  }
  const name = `Hello, I'm Mr No.${questions}!`;
  setTimeout(() => ws.send(name), 1000);
});

ws.on("close", (code) => {
  // Not part of the chat: what the test wants to know besides.
  console.error(JSON.stringify({ subprotocol: ws.protocol, code }));
});

ws.on("error", (error) => {
  console.error(String(error));
  process.exitCode = 1;
});
