import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

const { AUTH = "http://127.0.0.1:8400", API = "http://127.0.0.1:8000" } = process.env;
const proxy = { "/auth": AUTH, "/api": { target: API, ws: true } };

export default defineConfig({ plugins: [react()], server: { proxy }, preview: { proxy } });
