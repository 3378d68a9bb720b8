import java.io.DataInputStream;
import java.io.OutputStream;
import java.net.Socket;
import java.net.SocketException;
import java.net.SocketTimeoutException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

/** Several threads that each talk to an echo server and check what comes back. */
public class Client {
    static final int CONNECTIONS = 4;

    public static void main(String[] arguments) throws Exception {
        int port = Integer.parseInt(arguments[0]);
        ExecutorService threads = Executors.newFixedThreadPool(CONNECTIONS);
        List<Future<?>> results = new ArrayList<>();
        for (int i = 0; i < CONNECTIONS; i++) {
            int seed = i;
            results.add(threads.submit(() -> {
                talk(port, new Random(seed));
                interrupt(port);
                return null;
            }));
        }
        for (Future<?> result : results) {
            result.get();
        }
        threads.shutdown();
        System.out.println(CONNECTIONS + " connections");
    }

    /** Messages there and back, and then much in both directions at once up to a half close. */
    static void talk(int port, Random random) throws Exception {
        try (Socket connection = new Socket("127.0.0.1", port)) {
            DataInputStream in = new DataInputStream(connection.getInputStream());
            OutputStream out = connection.getOutputStream();
            for (int i = 0; i < 1000; i++) {
                byte[] sent = new byte[1 + random.nextInt(20_000)];
                random.nextBytes(sent);
                out.write(sent);
                byte[] received = new byte[sent.length];
                in.readFully(received);
                check(Arrays.equals(sent, received), "the echo differs");
            }
            byte[] sent = new byte[5_000_000];
            random.nextBytes(sent);
            Thread writer = new Thread(() -> {
                try {
                    out.write(sent);
                    connection.shutdownOutput();
                } catch (java.io.IOException error) {
                    error.printStackTrace();
                }
            });
            writer.start();
            check(Arrays.equals(sent, in.readAllBytes()), "the large echo differs");
            writer.join();
        }
    }

    /** A time-out, and a close by another thread, which ends the read that waits. */
    static void interrupt(int port) throws Exception {
        Socket connection = new Socket("127.0.0.1", port);
        for (int i = 0; i < 200; i++) {
            connection.getOutputStream().write(i);
            check(connection.getInputStream().read() == i, "the byte differs");
        }
        connection.setSoTimeout(50);
        try {
            connection.getInputStream().read();
            check(false, "there is no time-out");
        } catch (SocketTimeoutException expected) {
            connection.setSoTimeout(0);
        }
        Thread closer = new Thread(() -> {
            try {
                Thread.sleep(100);
                connection.close();
            } catch (Exception error) {
                error.printStackTrace();
            }
        });
        closer.start();
        try {
            connection.getInputStream().read();
            check(false, "the read went on after the close");
        } catch (SocketException expected) {
            closer.join();
        }
    }

    static void check(boolean right, String complaint) {
        if (!right) {
            throw new IllegalStateException(complaint);
        }
    }
}
