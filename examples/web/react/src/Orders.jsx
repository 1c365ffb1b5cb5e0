import { useQueries, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { useSession } from "unbroken-session/react";
import { getOrder, upload } from "./api";

const numbers = Array.from({ length: 20 }, (_, index) => index + 1);

export const Orders = () => {
  const { session, user, state, logout } = useSession();
  const client = useQueryClient();
  const orders = useQueries({
    queries: numbers.map((id) => ({ queryKey: ["orders", id], queryFn: () => getOrder(id) })),
  });
  const [percent, setPercent] = useState(0);
  const [uploaded, setUploaded] = useState("");
  const [heard, setHeard] = useState([]);
  const problem = orders.find(({ error }) => error)?.error;

  const send = async ({ target }) => {
    const { responseText } = await upload(target.files[0], (share) => setPercent(Math.round(share * 100)));
    setUploaded(`${JSON.parse(responseText).size} bytes`);
  };
  // A download and a WebSocket have no headers: each has a ticket in its URL.
  const download = async () => location.assign(`/api/report?ticket=${await session.ticket()}`);
  const listen = async () => {
    const socket = new WebSocket(`/api/live?ticket=${await session.ticket()}`);
    socket.onmessage = ({ data }) => setHeard((before) => [...before, data]);
  };
  return (
    <main>
      <header>
        {user?.sub} ({state}) <button onClick={() => logout()}>Log out</button>{" "}
        <button onClick={() => logout({ everywhere: true })}>Log out everywhere</button>
      </header>
      <h1>Orders</h1>
      {problem && <p role="alert">{problem.message}</p>}
      <button onClick={() => client.invalidateQueries()}>Send 20 requests</button>
      <ul>
        {orders.map(({ data }) => data && <li key={data.id}>{`Order ${data.id}: ${data.owner}`}</li>)}
      </ul>
      <label>
        Upload a file <input type="file" onChange={send} />
      </label>
      <progress value={percent} max="100" />
      <output>{uploaded}</output>
      <button onClick={download}>Download the report</button>
      <button onClick={listen}>Listen</button>
      {heard.map((text) => (
        <p key={text} className="heard">
          {text}
        </p>
      ))}
    </main>
  );
};
