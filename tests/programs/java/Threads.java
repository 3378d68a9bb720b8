import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;

/** Sends back what comes, with a thread for each connection. */
public class Threads {
    public static void main(String[] arguments) throws Exception {
        ServerSocket listener = new ServerSocket(0, 50, InetAddress.getByName("127.0.0.1"));
        System.out.println("listening on port " + listener.getLocalPort());
        while (true) {
            Socket connection = listener.accept();
            new Thread(() -> echo(connection)).start();
        }
    }

    static void echo(Socket connection) {
        try (connection) {
            InputStream in = connection.getInputStream();
            OutputStream out = connection.getOutputStream();
            byte[] buffer = new byte[30_000];
            for (int count; (count = in.read(buffer)) > 0;) {
                out.write(buffer, 0, count);
            }
        } catch (java.io.IOException error) {
            error.printStackTrace();
        }
    }
}
