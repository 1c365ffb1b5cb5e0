import axios from "axios";
import { session } from "./session";

export const request = axios.create({ baseURL: "/api", timeout: 10000 });
session.attach(request); // no interceptors: each request has a good token
