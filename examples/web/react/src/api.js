import { session } from "./session";

export const getOrder = async (id) => {
  const response = await session.fetch(`/api/orders/${id}`);
  if (!response.ok) throw new Error(`status ${response.status}`);
  return response.json();
};

// fetch tells no progress of an upload, XMLHttpRequest does: session.send takes any client.
export const upload = (file, onProgress) =>
  session.send({
    url: "/api/upload",
    send: (plan) =>
      new Promise((resolve, reject) => {
        const request = new XMLHttpRequest();
        request.open("POST", plan.url);
        for (const name in plan.headers) request.setRequestHeader(name, plan.headers[name]);
        request.upload.onprogress = ({ loaded, total }) => onProgress(loaded / total);
        request.onload = () => resolve(request);
        request.onerror = () => reject(new TypeError("no response"));
        request.send(file);
      }),
    head: (request) => ({
      status: request.status,
      url: request.responseURL,
      headers: { get: (name) => request.getResponseHeader(name) },
    }),
    read: async (request) => request.responseText,
  });
