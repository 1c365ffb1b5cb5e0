import { defineStore } from "pinia";
import { sessionStore } from "unbroken-session/vue";
import { session } from "./session";

export const useSessionStore = defineStore("session", sessionStore(session));
