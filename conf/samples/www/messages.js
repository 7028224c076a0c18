"use strict";

const form = document.getElementById("form");
const text = document.getElementById("text");
const bytes = document.getElementById("bytes");    // only where types are kept
const buttons = form.querySelectorAll("button");
const address = new URL("/ws/", location.href);
address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
document.getElementById("address").textContent = address.href;

function log(event, value = "") {
  const line = document.createElement("li");
  const time = document.createElement("time");
  const text = document.createElement("span");
  time.textContent = new Date().toISOString().slice(11, 23);
  text.textContent = `${event} ${value}`.trim();
  text.className = event.toLowerCase();
  line.append(time, text);
  document.getElementById("log").append(line);
}

const shown = (data) => typeof data === "string" ? data : `bytes ${new Uint8Array(data).join(" ")}`;

const socket = new WebSocket(address);
socket.binaryType = "arraybuffer";

function send(message) {
  log("SEND", shown(message));
  socket.send(message);
  text.value = "";
  text.focus();
}

socket.onopen = () => {
  log("CONNECT");
  buttons.forEach((button) => { button.disabled = false; });
};

form.onsubmit = (event) => {
  event.preventDefault();
  send(text.value);
};

if (bytes) {
  bytes.onclick = () => send(new TextEncoder().encode(text.value).buffer);
}

document.getElementById("close").onclick = () => socket.close(1000);

socket.onmessage = (event) => log("RECV", shown(event.data));

socket.onclose = (event) => {
  log("DISCONNECT", event.code);
  buttons.forEach((button) => { button.disabled = true; });
};
